"""YAML itself: what scalars mean, and what a strict reader refuses."""

# ruff: noqa: E501 (a table reads best with a row to a line)

from __future__ import annotations

import math
from datetime import date
from pathlib import Path

import pytest
from spec_texts import BASE, Faults, Load, marked

from hessdiag.errors import UsageError
from hessdiag.spec import load_spec


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        (".5", 0.5),
        ("1.", 1.0),
        ("-1.5e+3", -1500.0),
        ("+7", 7),
        ("010", 10),
        ("0o10", 8),
        ("0xfF", 255),
        ("true", True),
        ("False", False),
        ("TRUE", True),
        ("null", None),
        ("~", None),
        ("", None),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("Yes", "Yes"),
        ("y", "y"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        (str(date(2024, 1, 2)), "2024-01-02"),
        ("=", "="),
        ("1e", "1e"),
        (".", "."),
        ("0b11", "0b11"),
        ("1.2.3", "1.2.3"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("!!str 1", "1"),
        ("!!float 1", 1.0),
        ("!!int 0x10", 16),
        ("[1, [2, {a: 3}]]", [1, [2, {"a": 3}]]),
    ],
)
def test_what_a_scalar_means(load: Load, text: str, value: object) -> None:
    found = load(BASE.replace("model.py:build", f"a.b, init_args: {{x: {text}}}")).model.init_args["x"]
    assert found == value
    assert type(found) is type(value)


def test_nan_is_read_as_such(load: Load) -> None:
    assert math.isnan(load(BASE.replace("model.py:build", "a.b, init_args: {x: .nan}")).model.init_args["x"])


SYNTAX = [
    ("§", "found an empty file; expected a mapping with the keys model and data"),
    ("§# nothing but a comment\n", "found an empty file; expected a mapping with the keys model and data"),
    ("§---\n", "found an empty file; expected a mapping with the keys model and data"),
    ("§- model\n", "found a list at the top; expected a mapping with the keys model and data"),
    ("§hello\n", "found 'hello' at the top; expected a mapping with the keys model and data"),
    ("model:\n§\tclass_path: a.b\n", "not valid YAML: found character '\\t' that cannot start any token "
     "(while scanning for the next token); indent with spaces, not with tabs"),
    (BASE + "§---\nmore: 1\n", "found a second document, expected one; remove it, or keep it in a file of its own"),
    (BASE + 'loss: "a§\x07b"\n', "found the control character U+0007; remove it"),
    (BASE + 'loss: §"\\ud800"\n', "loss: found '\\ud800', expected text that can be written as UTF-8"),
    ("a: " + "[" * 50 + "§[" + "]" * 51, "not valid YAML: nested more than 50 deep"),
    (BASE + "audit: §!!set {a}", "audit: unknown tag !!set; expected none, because a spec holds no objects"),
    (BASE + "audit: {gap: {draws: §!!int abc}}", "audit.gap.draws: found 'abc' with the tag !!int, expected a whole number"),
    (BASE + "audit: {trace: {rtol: §1e999}}",
     "audit.trace.rtol: found 1e999, which no 64-bit number holds; write .inf where infinity is meant"),
    (BASE + "audit: {gap: {draws: §" + "9" * 5000 + "}}",
     "audit.gap.draws: found a whole number of 5000 digits, expected at most 9223372036854775807"),
    (BASE + "loss: {name: mse, §name: nll}", "loss.name: duplicate key: given twice, on line 3 and line 3; keep one of them"),
    (BASE + "§1: x", "found 1 as a key, expected text; write it in quotes"),
    (BASE + "loss: {name: mse, §true: x}", "loss: found true (a truth value) as a key, expected text; write it in quotes"),
    (BASE + "loss: {name: mse, §[a]: x}", "loss: found a collection as a key, expected text; write it in quotes"),
    (BASE + "audit: {<<: §3}", "audit.<<: found 3, expected a mapping to merge"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), SYNTAX)
def test_what_is_refused(faults: Faults, text: str, message: str) -> None:
    plain, line, column = marked(text)
    assert faults(plain) == [(line, column, message)]


@pytest.mark.parametrize(
    "text", ["model: {\n", "model: *here\n", "model: 'a\n", "a: b: c\n", "%YAML 99\n---\n", "a: !x!y z\n"]
)
def test_syntax_errors_have_a_place(faults: Faults, text: str) -> None:
    ((line, column, message),) = faults(text)
    assert line
    assert column
    assert message.startswith("not valid YAML: ")


def test_an_impossible_escape(faults: Faults) -> None:
    ((line, _, message),) = faults(BASE + 'loss: "\\UFFFFFFFF"\n')
    assert (line, message) == (3, "not valid YAML: an escape stands for no character")


def test_a_value_that_contains_itself(faults: Faults) -> None:
    message = "audit.gap: contains itself through an alias; expected a finite value"
    assert faults(BASE + "audit: &a {gap: *a}") == [(3, 8, message)]


def test_a_duplicate_names_both_lines(faults: Faults) -> None:
    text = "model:\n  class_path: a.b\n  class_path: c.d\n" + BASE.splitlines()[1]
    message = "model.class_path: duplicate key: given twice, on line 2 and line 3; keep one of them"
    assert faults(text) == [(3, 3, message)]


def test_aliases_cannot_blow_up(faults: Faults) -> None:
    levels = "".join(f"l{i + 1}: &l{i + 1} [{', '.join([f'*l{i}'] * 10)}]\n" for i in range(20))
    ((_, _, message),) = faults("l0: &l0 [1]\n" + levels)
    assert message == "found more than 100000 values, expected a spec; are aliases repeated?"


def test_merge_keys_and_anchors(load: Load) -> None:
    audit = load(BASE + "audit:\n  <<: [{trace: null}, {trace: {rtol: 1}, gap: {draws: 7}}]\n  density: null\n").audit
    assert audit.trace is None  # the first of the merged wins
    assert audit.gap is not None
    assert audit.gap.draws == 7
    shared = load(BASE + "audit: {gap: &g {draws: 9}, <<: {gap: {draws: 1}}}\n").audit.gap
    assert shared is not None
    assert shared.draws == 9  # the mapping's own key wins
    weights = load(BASE + "parameters: {include: &i [a, b], exclude: *i}").parameters
    assert weights.include == weights.exclude == ("a", "b")


def test_a_byte_order_mark_and_other_line_ends(load: Load, faults: Faults) -> None:
    assert load("\ufeff" + BASE).data.path == "digits.npz"
    windows = ("\ufeff" + BASE + "lss: mse\n").replace("\n", "\r\n")
    assert faults(windows) == [(3, 1, "lss: unknown key; did you mean loss?")]
    assert faults("\ufeffmodl: 1")[0][:2] == (1, 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.yaml", None, "DIR/none.yaml: no such file (looked in DIR)"),
        ("latin.yaml", b"a: \xe9", "DIR/latin.yaml: found byte 0xe9 at offset 3, which is not UTF-8; "
         "expected a spec (a YAML file, UTF-8 text)"),
        ("nul", b"PK\0\0", "DIR/nul: found a binary file, expected a spec (a YAML file, UTF-8 text)"),
        ("big", b"#" * (2**18 + 1), "DIR/big: found more than 262144 bytes, expected a spec (a short YAML file)"),
        ("w.safetensors", b"x", "DIR/w.safetensors: by its name a checkpoint; expected a spec (YAML), "
         "which names it under model.checkpoint, or the checkpoint with --data DATA.yaml and --model FACTORY"),
        ("w.PT", None, "DIR/w.PT: no such file, and by its name a checkpoint; expected a spec (YAML), "
         "which names it under model.checkpoint, or the checkpoint with --data DATA.yaml and --model FACTORY"),
    ],
)  # fmt: skip
def test_files_that_are_no_specs(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        load_spec(tmp_path / name)
    assert str(caught.value).replace(str(tmp_path), "DIR") == message
    assert caught.value.exit_code == 2


def test_a_folder_is_no_spec(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="found a folder, expected a spec"):
        load_spec(tmp_path)


def test_no_text_makes_the_reader_fall_over(load: Load) -> None:
    """Every prefix, and every removal of a character, of a spec with all of YAML in it: a Spec or a UsageError."""
    text = (
        BASE + 'audit: &a\n  <<: {trace: !!null }\n  gap: {sigma: "\\x31:2:3", draws: 1e1}\n? [b]\n: - |\n   x\n...\n'
    )
    outcomes = set()
    for i in range(len(text)):
        for candidate in (text[:i], text[:i] + text[i + 1 :], text[:i] + "*" + text[i:], text[:i] + "\0" + text[i:]):
            try:
                load(candidate)
                outcomes.add("spec")
            except UsageError:
                outcomes.add("refused")
    assert outcomes == {"spec", "refused"}
