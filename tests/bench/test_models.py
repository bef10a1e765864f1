"""Models of benchmarks say only what can be said again."""

from pathlib import Path

from lockstep.bench import models
from lockstep.bench.contestant import whole
from lockstep.bench.conversations import Trace, Turn
from lockstep.bench.groups import serve
from lockstep.workers.inference.model import ModelFolder
from lockstep.workers.inference.text import Text


def test_the_tokens_of_a_text_are_those_of_the_folder(small_model: Path) -> None:
    folder = ModelFolder.open(str(small_model))
    text = Text(folder)
    folder.close()
    assert text.encode(models.SPOKEN) == models.token_ids(models.SPOKEN)
    assert text.decode(models.token_ids(models.SPOKEN)) == models.SPOKEN
    assert len(set(models.token_ids(models.SPOKEN))) == len(models.SPOKEN) == 63


def test_an_answer_never_ends_before_its_length(small_model: Path) -> None:
    said = Trace("All of them begin so", ((Turn("Go on", 200), Turn("and on", 100)),))
    done = whole(serve.fleet(said, str(small_model), 1), said.lines(), watch=True)
    assert [len(tokens) for _, tokens, _, _ in done.seen["requests"]] == [200, 100]
    # The second prompt has the first answer in it, token for token.
    assert [cached for _, _, _, cached in done.seen["requests"]] == [0, 224]
