"""Grades that a serving model gives to answers; who asks it, and where it serves, is the agent's matter."""

import contextlib
import json
import math
import os
import re
import socket
from collections.abc import Sequence

from services.trainer.recipes.data.rows import Message
from services.trainer.recipes.job.failures import BadInput, RecipeError
from services.trainer.recipes.job.jobdir import JobDir

#: The number of an open socket, a line of JSON each way: `{"endpoint": id, "questions": [messages, …]}` is answered by
#: `{"answers": [text, …]}`, or by `{"error": sentence}`.
VARIABLE = "SLUICE_JUDGE"
INSTRUCTION = "You judge answers. Rate how helpful and right the answer to the prompt is."
#: A reply that is a grade and nothing else, such as `7`, `7.5.` and `7 / 10`: of several numbers none is sure to be it.
GRADE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:/\s*(\d+(?:\.\d+)?))?\s*\.?\s*")


class Judge:
    """The endpoint ``endpoint``, of which the agent asks ``model_version``. Raises BadInput where no agent is there."""

    def __init__(
        self, job: JobDir, endpoint: str = "", instruction: str = "", best: float = 0.0, model_version: str = ""
    ) -> None:
        self._job, self._endpoint = job, endpoint
        self._instruction, self._best = instruction or INSTRUCTION, best or 10.0
        self._asked = self._unreadable = 0
        number = os.environ.get(VARIABLE, "")
        if not number.isdigit():
            raise BadInput(f"A reward asks the endpoint {endpoint!r}, and no agent answers for it here.")
        self._line = int(number)

    def grades(self, several: Sequence[tuple[list[Message], str]]) -> list[float]:
        """From 0 to 1 for each prompt with its answer; 0, and counted in `judge_unreadable`, where the judge says
        anything but a number, or one beyond the best. Raises BadInput where it never does, or refuses the question.
        """
        said = self._ask([self._question(prompt, text) for prompt, text in several])
        found = [grade(each, self._best) for each in said]
        self._asked += len(found)
        self._unreadable += found.count(None)
        if found and self._unreadable == self._asked:
            raise BadInput(
                f"The endpoint {self._endpoint!r} never answers with a number alone; "
                "tell it so in `instruction`, or name another one."
            )
        self._job.notes["judge_unreadable"] = self._unreadable / max(1, self._asked)
        return [each or 0.0 for each in found]

    def _question(self, prompt: list[Message], text: str) -> list[Message]:
        asked = "\n".join(f"{message['role']}: {message['content']}" for message in prompt)
        wanted = f"Reply with one number from 0 to {self._best:g}, the best, and with nothing else: no word."
        content = f"Prompt:\n{asked}\n\nAnswer:\n{text}\n\n{wanted}"
        return [{"role": "system", "content": self._instruction}, {"role": "user", "content": content}]

    def _ask(self, questions: list[list[Message]]) -> list[str]:
        asked = json.dumps({"endpoint": self._endpoint, "questions": questions})
        said = b""
        with (
            socket.fromfd(self._line, socket.AF_UNIX, socket.SOCK_STREAM) as line,
            line.makefile("rb") as file,
            contextlib.suppress(OSError),  # the other end is gone
        ):
            line.sendall(asked.encode() + b"\n")
            said = file.readline()
        if not said:
            raise RecipeError("The agent no longer answers for the judge; submit the job again.")
        answer = json.loads(said)
        if "error" in answer:
            raise BadInput(str(answer["error"]))
        return [str(each) for each in answer["answers"]]


def grade(reply: str, best: float) -> float | None:
    """From 0 to 1: the number in a reply over ``best``, or over what the reply says it is out of; None where it has no
    one number, one beyond the best, or one that is too large for a float.
    """
    if (found := GRADE.fullmatch(reply)) is None:
        return None
    value, most = float(found[1]), float(found[2] or best)
    return value / most if value <= most < math.inf and most > 0 else None
