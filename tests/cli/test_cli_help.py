"""Every option that is promised is in the help, and every command has one."""

from __future__ import annotations

import pytest

MEASURING = ("audit", "eigs", "trace", "gap", "density", "crosscheck")
COMMON = (
    "--json",
    "--out",
    "--set",
    "--checkpoint",
    "--seed",
    "--device",
    "--dtype",
    "--batch-size",
    "--max-examples",
    "--max-time",
    "--memory",
    "--quiet",
    "--debug",
)
OWN = {
    "audit": (),
    "eigs": ("--top", "--bottom", "--method", "--rtol", "--max-matvecs"),
    "trace": ("--method", "--rtol", "--max-matvecs"),
    "gap": ("--sigma", "--draws", "--estimator", "--distribution"),
    "density": (),
    "crosscheck": (),
}


@pytest.mark.parametrize("command", MEASURING)
def test_promised_options_are_in_the_help(run, command):
    result = run(command, "--help")
    assert result.exit_code == 0
    words = result.stdout.split()
    assert [option for option in (*COMMON, *OWN[command]) if option not in words] == []


@pytest.mark.parametrize("command", [*MEASURING, "inspect", "init", "validate", "schema", "doctor"])
def test_every_command_is_listed(run, command):
    listed = run("--help").stdout
    assert f" {command} " in listed


@pytest.mark.parametrize(
    ("option", "words"),
    [("--method", ("lanczos", "power")), ("--dtype", ("float32", "float64", "bfloat16"))],
)
def test_closed_choices_are_spelt_out(run, option, words):
    lines = [line for line in run("eigs", "--help").stdout.splitlines() if option in line.split()]
    assert len(lines) == 1
    assert all(word in lines[0] for word in words)


def test_version(run):
    import hessdiag

    assert run("--version").stdout == f"hessdiag {hessdiag.__version__}\n"


def test_no_arguments_is_a_usage_error_with_the_help(run):
    result = run()
    assert result.exit_code == 2
    assert "audit" in result.stdout + result.stderr
