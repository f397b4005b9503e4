"""vLLM: servers on checkpoints, requests to them, and what they answered, once each.

server.py        an OpenAI server started, watched, shared between stages, stopped
client.py        bounded requests, every sampling field pinned, failures typed
wire.py          what servers differ in: addresses, retries, refused fields, errors
answers.py       answers on disk by content: nothing is asked twice
adapters.py      LoRA adapters beside their base, and what vLLM would ignore of one
engine.py        vLLM inside this process, where no server may listen

Inside:

template.py      the chat template where the checkpoint's own would not do
guard.py         a server never outlives who asked for it
vllm_install.py  the installed vLLM, its device and environment
"""
