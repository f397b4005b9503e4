"""One file a benchmark: its `Config` and its `TASK`. Others ask `task.py`, `registry.py` and `facts.py`.

Adding a benchmark
------------------
A benchmark is one new file of this folder, found by its name, which is the `type` of a recipe's task. The
report, the command line and the recipes need no word about it. The file has

- `Config`, a `QuestionConfig`: the published files that it needs, and defaults of its own for what all have
  (`prompt`, `max_tokens`, `split`);
- a class, a `QuestionTask[Config]`, of attributes and one function;
- `TASK = ` that class; and, if recipes know it by another name, `ALIASES = {"name": "Label"}`.

Attributes of the class (all but `label`, `files`, `grader` and the words of the card have a default):

    label           what readers call it: "DocVQA"
    measures        its aim: "ability" (the default), "probing", "invention"; see `evals.protocol.Aim`
    files           key of `Config` -> names of that file in a published folder, the best first
    section         key of the list of rows in that file, where the file is not that list
    grader          `staticmethod` of a grader of `evals.scoring.graders`
    metric          name of the mean grade: "accuracy", "anls"; `description` says what it is
    answer_format   the answer files that people publish, for help and errors: `answers_as(...)`
    parser, aggregation, source, licence, cluster
                    the words of its protocol card
    facts           what else a report must know, see `facts.py`: the guard metric of a verdict,
                    the rate of inventions, names of its metrics

The function makes a `Question` of a published row; `where` is for its errors:

    def question(self, row, where):
        name, image, text, answers = read_fields(row, ("questionId", "image", "question", "answers"), where)
        texts = need_answers(answers, where)
        return Question(str(name), str(image), str(text), {"answers": texts}, label=texts[0])

`docvqa.py` is the whole of it. Where a benchmark differs, one more function: `questions` (several files),
`grade` (options and letters), `answered_id` (which question a published answer belongs to), `locate` (files
that are not found by name), `combine` (answers that count together). One that does not ask a question and
grade each answer by itself is a `Task` or, with a judge, a `JudgedTask`: `samples`, `parse`, `mark`,
`metrics`.
"""
