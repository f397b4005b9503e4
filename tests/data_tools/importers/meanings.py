"""Keys that carry meaning, by what they mean, and a value that each may have in somebody's file."""

from __future__ import annotations

from typing import Any

MEANING: dict[str, dict[str, Any]] = {
    "video": {
        "video": "v.mp4",
        "videos": ["v.mp4"],
        "video_path": "v.mp4",
        "video_url": "https://x.org/v.mp4",
        "input_video": "v.mp4",
        "videoPath": "v.mp4",
        "frames": ["1.jpg"],
        "video_id": "v1",
    },
    "sound": {"audio": "x.wav", "audios": ["x.wav"], "audio_path": "x.wav", "input_audio": {"data": "AAAA"}},
    "worse answer": {
        "rejected_response": "Something else.",
        "rejected_messages": [{"role": "assistant", "content": "Something else."}],
        "rejected_answer": "Something else.",
        "reject": "Something else.",
        "rejected_images": ["b.png"],
        "y_l": "Something else.",
        "negative": "Something else.",
        "dispreferred": "Something else.",
        "loser": "Something else.",
    },
    "better answer": {"chosen_response": "Another.", "preferred": "Another.", "winner": "Another."},
    "label": {"label": False, "kto_tag": True, "preference": 1},
    "system": {"system": "Be brief.", "system_prompt": "Be brief."},
    "loss": {"loss": False, "weight": 0.5, "train": False, "loss_scale": 0.1},
    "reasoning": {
        "reasoning_content": "Hm.",
        "thinking": "Hm.",
        "chain_of_thought": "Hm.",
        "rationale": "Hm.",
    },
    "tools": {"tools": [{"name": "f"}], "tool_calls": [{"id": 1}], "functions": [{"name": "f"}]},
    "boxes": {
        "objects": {"bbox": [[1, 2, 3, 4]]},
        "bbox": [1, 2, 3, 4],
        "boxes": [[1, 2, 3, 4]],
        "points": [[1, 2]],
        "segmentation": [[1, 2]],
    },
    "question": {"choices": ["a", "b"], "options": ["a", "b"], "hint": "Look.", "history": [["q", "a"]]},
    "pictures": {"retrieved_image": "b.png", "image_2": "b.png", "mask_image": "b.png"},
}
