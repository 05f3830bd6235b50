"""Shell completion: the scripts load in their shells, and complete commands, options and values."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.__main__ import main
from tests.serving import ROOT

IN_BASH = """
set -eu
eval "$(resnet-serve completion bash)"
complete_words() {
    COMP_WORDS=(resnet-serve "$@") COMP_CWORD=$# COMPREPLY=()
    _resnet_serve_completion resnet-serve
    echo "${COMPREPLY[@]}"
}
complete_words cl
complete_words classify --js
complete_words classify --tta ten
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """One in which `resnet-serve` is a command."""
    command = tmp_path / "resnet-serve"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m service "$@"\n')
    command.chmod(0o755)
    return os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def run(arguments: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bash_completes_commands_options_and_values(environment: dict[str, str]) -> None:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    told = run(["bash", "-c", IN_BASH], environment)
    assert told.split() == ["classify", "--json", "ten_crop"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_that_its_shell_reads(tmp_path: Path, shell: str) -> None:
    script = CliRunner().invoke(main, ["completion", shell], prog_name="resnet-serve").output
    assert f"{shell}_complete" in script
    if shutil.which(shell) is not None:
        path = tmp_path / "completion"
        path.write_text(script)
        subprocess.run([shell, "-n", str(path)], check=True, timeout=60)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_command_answers_what_the_script_asks(shell: str) -> None:
    # zsh counts the word under the cursor, fish gives it.
    asked = {"COMP_WORDS": "resnet-serve cl", "COMP_CWORD": "1" if shell == "zsh" else "cl"}
    asked["_RESNET_SERVE_COMPLETE"] = f"{shell}_complete"
    assert "classify" in CliRunner().invoke(main, [], env=asked, prog_name="resnet-serve").output
