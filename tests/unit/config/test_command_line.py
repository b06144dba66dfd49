"""The command line: generated from the fields, and frozen by a list in tests/data."""

from pathlib import Path

import pytest

from acidmpi.config.command_line import make_parser, parse
from acidmpi.config.options import options_of
from acidmpi.config.train import USED_BY, TrainConfig
from acidmpi.errors import ConfigError

FROZEN = Path(__file__).parents[2] / "data" / "train_options.txt"


def run(*arguments):
    parser = make_parser(TrainConfig, "train", "Trains.", "train 1.0")
    return parse(parser, TrainConfig, list(arguments))


def described(option):
    default = "none" if option.default is None else option.default
    return f"{option.flag} [{default}] {option.wanted}"


def test_the_options_are_those_that_were_promised():
    """A changed line changes what others rely on: say so in the changelog."""
    now = [described(option) for option in options_of(TrainConfig)]
    assert now == FROZEN.read_text().splitlines()


def test_no_arguments_give_the_defaults():
    assert run() == TrainConfig()


@pytest.mark.parametrize("option", options_of(TrainConfig), ids=lambda o: o.name)
def test_every_option_reaches_its_field(option):
    if option.kind is bool:
        assert getattr(run(option.flag), option.name) is True
        assert getattr(run(option.flag.replace("--", "--no-")), option.name) is False
        return
    text = option.choices[-1] if option.choices else "1"
    text = "0.5" if option.name == "momentum" else text
    method = [f"--method={USED_BY.get(option.name, ('async',))[0]}"]
    method = [] if option.name == "method" else method
    expected = option.kind(text)
    assert getattr(run(*method, option.flag, text), option.name) == expected
    assert getattr(run(*method, f"{option.flag}={text}"), option.name) == expected


def test_the_command_line_wins_over_the_file(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("lr = 0.5\nseed = 7\nclip = 1.0\noverwrite = true\n")
    config = run("--config", str(path), "--lr", "0.25", "--clip=none", "--no-overwrite")
    assert config == TrainConfig(lr=0.25, seed=7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--comm-rat", "1"], "unknown option --comm-rat; did you mean '--comm-rate'?"),
        (["--comm_rate=1"], "unknown option --comm_rate; did you mean '--comm-rate'?"),
        (["--resum"], "did you mean '--resume'"),
        (["--compression", "topk"], "--compression is for --method allreduce"),
        (["--method", "localsgd", "--topology", "star"], "--topology is for --method"),
        (["--method", "allreduce", "--local-steps", "2"], "--method localsgd, got 2"),
        (["--qqqqqqqq"], "see --help"),
        (["digits"], "unexpected argument 'digits'"),
        (["--lr"], "expected one argument"),
        (["--lr", "much"], "--lr must be a number above 0 or 'none', got 'much'"),
        (["--lr", "nan"], "--lr must be a number"),
        (["--lr", "1e999"], "--lr must be a number"),
        (["--lr", "1e30"], "got '1e30'; no number may be above 9.22e+18"),
        (["--batch-size", "1" + "0" * 400], "no number may be above"),
        (["--batch-size", "1.5"], "--batch-size must be a whole number"),
        (["--batch-size", "inf"], "--batch-size must be a whole number"),
        (["--batch-size", "nan"], "--batch-size must be a whole number"),
        (["--max-lag", "-1"], "--max-lag must be"),
        (["--method", "asynch"], "did you mean 'async'?"),
        (["--device", "gpu"], "--device must be one of auto, cpu, cuda, got 'gpu'"),
        (["--epoch", "3"], "unknown option --epoch; did you mean '--epochs'?"),
        (["--overwrite=maybe"], "--overwrite"),
        (["--output", "run\udcff"], r"--output must be text in UTF-8, as run folders"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(arguments, message):
    with pytest.raises(ConfigError) as caught:
        run(*arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["32", "3.2e1", "32.0", " 32 "])
def test_whole_numbers_may_have_an_exponent(text):
    assert run("--batch-size", text).batch_size == 32


def test_a_whole_number_keeps_all_its_digits():
    assert run("--chunk-bytes", str(2**60 + 1)).chunk_bytes == 2**60 + 1


def test_help_shows_every_option_with_its_explanation_and_default(capsys):
    with pytest.raises(SystemExit) as caught:
        run("--help")
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("-\n", "-").split())
    for option in options_of(TrainConfig):
        assert option.flag in text
        last_words = option.explanation.split()[-3:]
        assert " ".join(last_words) in text
    assert "[handshake]" in text


def test_version_is_printed(capsys):
    with pytest.raises(SystemExit):
        run("--version")
    assert capsys.readouterr().out.strip() == "train 1.0"
