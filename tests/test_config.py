"""Loading: what cannot be read, what several files have to do with each other, what is resolved and remembered."""

from __future__ import annotations

import os
import pathlib
import time
import tracemalloc

import pytest

from regstream import config, errors, plan, spec
from regstream.config import document, yaml
from regstream.generator import trial

GOOD = 'streams:\n  A:\n    interval: 1s\n    fields: {n: "{{ seq }}"}\n'


class Tree:
    """A folder with the files of a configuration."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.streams = root / "streams.yaml"
        self.scenarios = root / "scenarios"
        self.templates = root / "templates"

    def write(self, name: str, content: str | bytes) -> pathlib.Path:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def load(self, env: str = "development") -> spec.Catalog:
        return config.load(self.streams, self.scenarios, self.templates, env)

    def problems(self) -> list[str]:
        """What is wrong, each with its file's path within the folder."""
        with pytest.raises(errors.ConfigError) as caught:
            self.load()
        return [str(one).removeprefix(f"{self.root}{os.sep}") for one in caught.value.problems]


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> Tree:
    return Tree(tmp_path)


# What cannot be read


def test_a_missing_file_is_a_problem_and_names_the_near_ones(tree: Tree) -> None:
    tree.write("stream.yaml", GOOD)
    assert tree.problems() == ["streams.yaml:1:1: there is no such file (did you mean stream.yaml?)"]


def test_a_link_that_leads_nowhere_is_a_problem(tree: Tree) -> None:
    tree.streams.symlink_to(tree.root / "gone.yaml")
    assert tree.problems() == ["streams.yaml:1:1: a link to a file that does not exist"]


def test_a_link_in_a_circle_is_a_problem(tree: Tree) -> None:
    tree.streams.symlink_to(tree.streams)
    (problem,) = tree.problems()
    assert problem.startswith("streams.yaml:1:1: cannot be read: ")


def test_a_folder_in_place_of_the_file_is_a_problem(tree: Tree) -> None:
    tree.streams.mkdir()
    assert tree.problems() == ["streams.yaml:1:1: a folder, a file is expected here"]


def test_a_pipe_is_refused_and_does_not_hang(tree: Tree) -> None:
    os.mkfifo(tree.streams)
    assert tree.problems() == ["streams.yaml:1:1: not a regular file"]


def test_a_device_is_refused() -> None:
    zero, none = pathlib.Path("/dev/zero"), pathlib.Path("/nowhere")
    with pytest.raises(errors.ConfigError) as caught:
        config.load(zero, none, none, "development")
    assert str(caught.value.problems[0]) == "/dev/zero:1:1: not a regular file"


def test_a_path_below_a_file_is_a_problem(tree: Tree) -> None:
    tree.write("file", "")
    tree.streams = tree.root / "file" / "streams.yaml"
    assert tree.problems() == ["file/streams.yaml:1:1: cannot be read: not a directory"]


def test_a_path_that_no_system_takes_is_a_problem(tree: Tree) -> None:
    tree.streams = tree.root / ("x" * 300)
    (problem,) = tree.problems()
    assert "cannot be read: file name too long" in problem


def test_a_refusal_of_the_system_is_said_in_its_words(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, flags: int) -> int:
        raise PermissionError(13, "Permission denied")

    tree.write("streams.yaml", GOOD)
    monkeypatch.setattr(document.os, "open", refuse)
    assert tree.problems() == ["streams.yaml:1:1: cannot be read: permission denied"]


@pytest.mark.parametrize("content", ["", "\n\n", "# only words\n", "---\n...\n", "\ufeff"])
def test_an_empty_file_is_a_problem(tree: Tree, content: str) -> None:
    tree.write("streams.yaml", content)
    (problem,) = tree.problems()
    assert problem.startswith("streams.yaml:")
    assert problem.endswith(":1: the file is empty")


def test_a_binary_file_is_a_problem_at_its_first_bad_byte(tree: Tree) -> None:
    tree.write("streams.yaml", b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    assert tree.problems() == ["streams.yaml:1:1: not UTF-8 text (save the file as UTF-8)"]


def test_latin_1_is_refused_where_it_begins(tree: Tree) -> None:
    tree.write("streams.yaml", GOOD.encode() + "    description: Jos\xe9\n".encode("latin-1"))
    assert tree.problems() == ["streams.yaml:5:21: not UTF-8 text (save the file as UTF-8)"]


def test_a_null_character_is_refused_where_it_stands(tree: Tree) -> None:
    tree.write("streams.yaml", GOOD + "    description: a\0b\n")
    assert tree.problems() == ["streams.yaml:5:19: character U+0000 is not allowed (is this a text file?)"]


def test_utf_16_is_refused(tree: Tree) -> None:
    tree.write("streams.yaml", GOOD.encode("utf-16"))
    assert tree.problems() == ["streams.yaml:1:1: not UTF-8 text (save the file as UTF-8)"]


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tree: Tree) -> None:
    tree.write("streams.yaml", b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert list(tree.load().streams) == ["A"]


def test_positions_hold_with_windows_line_ends_and_wide_characters(tree: Tree) -> None:
    text = "# \U0001f600 S\xe3o Paulo\n" + GOOD + "    description: S\xe3o\n    colour: \U0001f600\n    prioridad: x\n"
    tree.write("streams.yaml", text.replace("\n", "\r\n"))
    assert [one.split(" ")[0] for one in tree.problems()] == ["streams.yaml:7:5:", "streams.yaml:8:5:"]


def test_a_huge_file_is_refused(tree: Tree) -> None:
    tree.write("streams.yaml", GOOD + "#" * document.MAX_BYTES)
    assert tree.problems() == ["streams.yaml:1:1: larger than 8 MiB"]


def test_a_file_of_very_many_values_is_refused(tree: Tree) -> None:
    tree.write("streams.yaml", GOOD + "    with: [" + "1," * (yaml.MAX_VALUES + 1) + "]\n")
    (problem,) = tree.problems()
    assert "more than 300,000 values" in problem


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "!!map {a: "])
def test_deep_nesting_is_refused(tree: Tree, opening: str) -> None:
    tree.write("streams.yaml", opening * 50_000)
    assert len(tree.problems()) == 1


def bomb(levels: int, filling: str) -> str:
    lines = [f"a0: &a0 {filling}"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("filling", ["x", "[x, x, x, x]", "{a: {b: c}}", "y" * 50_000])
def test_an_alias_bomb_is_refused_quickly_and_in_little_memory(tree: Tree, filling: str) -> None:
    tree.write("streams.yaml", bomb(30, filling) + GOOD)
    tracemalloc.start()
    before = time.thread_time()
    try:
        (problem,) = tree.problems()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "more than 300,000 values" in problem
    assert peak < 32 * 1024 * 1024
    assert time.thread_time() - before < 5


def test_a_merge_bomb_is_refused(tree: Tree) -> None:
    lines = ["m0: &m0 {" + ", ".join(f"k{n}: {n}" for n in range(100)) + "}"]
    lines += [f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 10)}]}}" for n in range(1, 30)]
    tree.write("streams.yaml", "\n".join(lines) + "\n" + GOOD)
    (problem,) = tree.problems()
    assert "more than 300,000 values" in problem


def test_a_file_of_nothing_but_lines_is_refused_in_little_memory(tree: Tree) -> None:
    tree.write("streams.yaml", "a: b: c\n" + "\n" * (document.MAX_BYTES - 100))
    assert tree.problems() == [
        "streams.yaml:1:5: a ':' that begins no value (put the text in quotes, or check the indentation)"
    ]


def test_the_problems_of_a_file_are_bounded(tree: Tree) -> None:
    tree.write("streams.yaml", GOOD + "".join(f"    k{n}: 1\n" for n in range(3000)))
    problems = tree.problems()
    assert len(problems) == 1001
    assert "streams.yaml:1005:5: more than 1,000 problems, the others are not shown" in problems


def test_a_message_stays_one_short_line_whatever_it_quotes(tree: Tree) -> None:
    tree.write("streams.yaml", GOOD + '    "a\\nb\\e": 1\n    ' + "k" * 900 + ": 1\n")
    first, second = tree.problems()
    assert first.startswith("streams.yaml:5:5: unknown key 'a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}' (")
    assert len(second) < 900


def test_a_folder_of_too_many_bytes_is_refused(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_TOTAL", 1024 * 1024)
    tree.write("streams.yaml", GOOD)
    for name in "abcd":
        tree.write(f"templates/{name}.j2", "x" * 400_000)
    assert "templates:1:1: its files are larger than 1 MiB together" in tree.problems()


def test_a_folder_of_too_many_files_is_refused(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_FILES", 2)
    tree.write("streams.yaml", GOOD)
    for name in "abc":
        tree.write(f"scenarios/{name}.yaml", f"name: {name}\nsteps: [{{wait: 1s}}]\n")
    assert tree.problems() == ["scenarios:1:1: more than 2 files"]


# Several files


def test_every_problem_of_every_file_is_given_in_order(tree: Tree) -> None:
    tree.write("streams.yaml", "streams:\n  A: {intervall: 1s, fields: {n: '{{ sq }}'}}\n")
    tree.write("scenarios/b.yaml", "name: B\nsteps: [{wait: long}]\n")
    tree.write("scenarios/a.yaml", "name: A\nsteps: [\n")
    tree.write("templates/x.j2", "{% macro a() %}\n{% endmacro %}\n{{ a( }}\n")
    assert [one.split(" ")[0] for one in tree.problems()] == [
        "scenarios/a.yaml:2:8:",
        "scenarios/b.yaml:2:16:",
        "streams.yaml:2:7:",
        "streams.yaml:2:34:",
        "templates/x.j2:3:1:",
    ]


def test_the_files_are_named_as_the_caller_names_them(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.chdir(tmp_path)
    tree.write("streams.yaml", "streams: 5\n")
    tree.write("scenarios/a.yaml", "steps: 5\n")
    with pytest.raises(errors.ConfigError) as caught:
        config.load(pathlib.Path("streams.yaml"), pathlib.Path("./scenarios"), pathlib.Path("templates"), "x")
    assert [one.file for one in caught.value.problems] == ["scenarios/a.yaml", "scenarios/a.yaml", "streams.yaml"]


def test_a_problem_names_its_place_in_the_tree(tree: Tree) -> None:
    tree.write("streams.yaml", GOOD + "    alert: {when: 'x', message: 5}\n")
    tree.write("scenarios/a.yaml", "name: A\nsteps: [{wait: 1s}, {parallel: [[{wait: soon}]]}]\n")
    with pytest.raises(errors.ConfigError) as caught:
        tree.load()
    assert [one.path for one in caught.value.problems] == ["steps[1].parallel[0][0].wait", "streams.A.alert.message"]


def test_a_template_within_a_list_has_its_index_in_the_place(tree: Tree) -> None:
    tree.write("streams.yaml", "streams:\n  A: {interval: 1s, fields: {a: {b: [1, '{{ sq }}']}}}\n")
    with pytest.raises(errors.ConfigError) as caught:
        tree.load()
    assert [one.path for one in caught.value.problems] == ["streams.A.fields.a.b[1]"]


def test_two_scenarios_cannot_have_one_name(tree: Tree) -> None:
    tree.write("streams.yaml", GOOD)
    tree.write("scenarios/a.yaml", "name: CRISIS\nsteps: [{wait: 1s}]\n")
    tree.write("scenarios/b.yaml", "steps: [{wait: 1s}]\nname: CRISIS\n")
    (problem,) = tree.problems()
    assert problem.startswith("scenarios/b.yaml:2:7: name 'CRISIS' is taken by the scenario in ")
    assert "a.yaml" in problem


def test_streams_that_cannot_be_read_are_not_said_to_be_missing_from_scenarios(tree: Tree) -> None:
    tree.write("streams.yaml", "streams: [\n")
    tree.write("scenarios/a.yaml", "name: A\nsteps: [{pause: BUDGET}]\n")
    assert len(tree.problems()) == 1


def test_an_entity_that_cannot_be_read_is_not_said_to_be_missing_from_streams(tree: Tree) -> None:
    tree.write("streams.yaml", "entities: {svp: 3}\n" + GOOD + "    with: {svp: \"{{ pick('svp') }}\"}\n")
    assert tree.problems() == ["streams.yaml:1:17: svp: must be a mapping, not 3"]


def test_a_wrong_value_does_not_hide_a_wrong_template(tree: Tree) -> None:
    text = "streams:\n  A:\n    interval: soon\n    with: {a: 5}\n    fields: {n: '{{ a + sq }}', m: !x 1}\n"
    text += "    topic: '?'\n"
    tree.write("streams.yaml", text)
    assert [one.split(" ")[0] for one in tree.problems()] == [
        "streams.yaml:3:15:",
        "streams.yaml:4:15:",
        "streams.yaml:5:17:",
        "streams.yaml:5:36:",
        "streams.yaml:6:12:",
    ]


@pytest.mark.parametrize("folder", ["scenarios", "templates"])
def test_a_file_in_place_of_a_folder_is_a_problem(tree: Tree, folder: str) -> None:
    tree.write("streams.yaml", GOOD)
    tree.write(folder, "")
    assert tree.problems() == [f"{folder}:1:1: a file, a folder is expected here"]


def test_a_folder_named_like_a_file_is_a_problem(tree: Tree) -> None:
    tree.write("streams.yaml", GOOD)
    (tree.scenarios / "x.yaml").mkdir(parents=True)
    assert tree.problems() == ["scenarios/x.yaml:1:1: a folder, a file is expected here"]


def test_what_an_editor_leaves_behind_is_not_read(tree: Tree) -> None:
    tree.write("streams.yaml", GOOD)
    for name in (".#a.yaml", ".a.yaml.swp", "a.yaml~", "a.yaml.bak", "notes.txt"):
        tree.write(f"scenarios/{name}", "\0")
    assert tree.load().scenarios == {}


def test_a_template_file_that_is_no_text_is_a_problem_of_that_file_alone(tree: Tree) -> None:
    tree.write("streams.yaml", "streams:\n  A: {interval: 1s, template: a.j2}\n")
    tree.write("templates/a.j2", b'{"a":\n "\xff"}')
    assert tree.problems() == ["templates/a.j2:2:3: not UTF-8 text (save the file as UTF-8)"]


def test_a_fault_that_only_a_stream_shows_is_placed_in_the_template_file(tree: Tree) -> None:
    tree.write("streams.yaml", "streams:\n  A: {interval: 1s, template: a.j2}\n")
    tree.write("templates/a.j2", '{\n  "n": {{ sq }}\n}\n')
    assert tree.problems() == ["templates/a.j2:2:1: 'sq' is undefined (did you mean seq?)"]


def test_a_csv_file_that_is_none_is_a_problem_of_that_file_alone(tree: Tree) -> None:
    draws = "{interval: 1s, fields: {x: \"{{ empirical('t.csv', 'a') }}\"}}"
    tree.write("streams.yaml", f"streams:\n  A: {draws}\n  B: {draws}\n")
    for content, problem in (
        (b"a,b\n1,2\n1,\xff\n", "3:3: not UTF-8 text (save the file as UTF-8)"),
        (b"", "1:1: no header (write the names of the columns into the first line)"),
        (b"a,b,a\n1,2,3\n", "1:1: there are two columns 'a' (give one of them another name)"),
        (
            b"a,b\n1,2\n1,2,3\n",
            "3:1: the row has 3 cells, the header 2 (leave no cell out, and put texts with commas between quotes)",
        ),
    ):
        tree.write("templates/t.csv", content)
        assert tree.problems() == [f"templates/t.csv:{problem}"]
    tree.write("templates/t.csv", "\N{BYTE ORDER MARK}a,b\r\n1,2\r\n")
    assert set(tree.load().templates) == {"t.csv"}


def test_a_csv_file_counts_among_the_bytes_of_its_folder(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.write("streams.yaml", GOOD)
    tree.write("templates/a.csv", "a\n" + "1\n" * 300_000)
    assert tree.problems() == ["templates/a.csv:100002:1: more than 100,000 rows (take a sample of them)"]
    monkeypatch.setattr(document, "MAX_TOTAL", 1024 * 1024)
    tree.write("templates/b.j2", "x" * 600_000)
    assert "templates:1:1: its files are larger than 1 MiB together" in tree.problems()


def test_a_csv_file_or_column_that_is_not_there_is_told_where_it_is_asked_for(tree: Tree) -> None:
    tree.write("templates/amounts.csv", "value,weight\n1,2\n")
    tree.write("templates/m.j2", "\n{% macro f() %}{{ empirical('amounts.csv', 'val') }}{% endmacro %}")
    call = "empirical('{}', '{}')".format
    tree.write(
        "streams.yaml",
        'entities:\n  e: {count: 1, key: id, fields: {id: "{{ ' + call("amount.csv", "value") + ' }}"}}\n'
        'streams:\n  A:\n    interval: 1s\n    fields:\n      x: "{{ ' + call("amounts.csv", "wait") + ' }}"\n'
        "      y: |-\n        {% if true %}\n        {{ " + call("ammounts.csv", "value") + " }}{% endif %}\n",
    )
    assert tree.problems() == [
        "streams.yaml:2:39: empirical: no CSV file 'amount.csv' (did you mean amounts.csv?)",
        "streams.yaml:7:10: empirical: there is no column 'wait' (did you mean weight?)",
        "streams.yaml:10:9: empirical: no CSV file 'ammounts.csv' (did you mean amounts.csv?)",
        "templates/m.j2:2:1: empirical: there is no column 'val' (did you mean value?)",
    ]


# What is resolved


def test_names_are_derived_and_defaults_taken(tree: Tree) -> None:
    tree.write("streams.yaml", "defaults: {batchSize: 3, priority: LOW, jitter: 10%, timezone: America/Lima}\n" + GOOD)
    declaration = tree.load().streams["A"]
    assert (declaration.name, declaration.topic, declaration.event) == ("A", "reginsight.a", "a")
    assert (declaration.batch_size, declaration.priority, declaration.jitter) == (3, spec.Priority.LOW, 0.1)
    assert (declaration.interval, declaration.timezone) == (1000, "America/Lima")


def test_what_a_stream_says_itself_is_stronger_than_the_defaults(tree: Tree) -> None:
    tree.write("streams.yaml", "defaults: {batch_size: 3, priority: LOW}\n" + GOOD + "    batchSize: 1\n")
    declaration = tree.load().streams["A"]
    assert (declaration.batch_size, declaration.priority) == (1, spec.Priority.LOW)


def test_the_environment_picks_a_profile(tree: Tree) -> None:
    tree.write("streams.yaml", "profiles: {test: {speed: 20}}\n" + GOOD)
    assert tree.load("test").profile.speed == 20
    assert tree.load("production").profile == spec.Profile()


def test_dates_and_words_stay_text(tree: Tree) -> None:
    tree.write("streams.yaml", "streams:\n  A: {interval: 1s, fields: {day: 2026-01-01, answer: yes, n: 0o17}}\n")
    assert tree.load().streams["A"].fields == {"day": "2026-01-01", "answer": "yes", "n": 15}


def test_what_is_inherited_comes_first_and_is_overridden_in_place(tree: Tree) -> None:
    text = "streams:\n  A: {interval: 1s, fields: &f {a: 1, b: 2}}\n  B: {interval: 1s, fields: {c: 3, a: 9, <<: *f}}\n"
    tree.write("streams.yaml", text)
    fields = tree.load().streams["B"].fields
    assert fields is not None
    assert list(fields.items()) == [("a", 9), ("b", 2), ("c", 3)]


def test_a_stream_knows_the_template_files_it_is_made_with(tree: Tree) -> None:
    imports = "      shown: \"{% from 'money.j2' import money %}{{ money(1) }}\"\n"
    tree.write("streams.yaml", "streams:\n  A:\n    interval: 1s\n    fields:\n" + imports)
    tree.write("templates/money.j2", "{% macro money(v) %}{{ v }}{% endmacro %}")
    tree.write("templates/other.j2", "")
    catalog = tree.load()
    assert [name for name, _ in catalog.streams["A"].files] == ["money.j2"]
    assert set(catalog.templates) == {"money.j2", "other.j2"}


def test_a_changed_template_file_changes_the_streams_made_with_it(tree: Tree) -> None:
    tree.write("streams.yaml", GOOD + "  B: {interval: 1s, template: a.j2}\n")
    tree.write("templates/a.j2", '{"a": 1}')
    before = tree.load()
    tree.write("templates/a.j2", '{"a": 2}')
    after = tree.load()
    assert after.streams["A"] == before.streams["A"]
    assert after.streams["B"] != before.streams["B"]


def test_a_changed_csv_file_changes_what_draws_from_it_and_nothing_else(tree: Tree) -> None:
    call = "{{ empirical('a.csv', 'a') }}"
    tree.write(
        "streams.yaml",
        f"""
entities:
  drawn: {{count: 2, key: id, fields: {{id: "{{{{ index }}}}", x: "{call}"}}}}
  other: {{count: 2, key: id, fields: {{id: "{{{{ index }}}}"}}}}
streams:
  EXPRESSION: {{interval: 1s, fields: {{x: {{y: ["{call}"]}}}}}}
  STATEMENT: {{interval: 1s, fields: {{x: "{{% if true %}}{call}{{% endif %}}"}}}}
  MACRO: {{interval: 1s, fields: {{x: "{{% from 'm.j2' import f %}}{{{{ f() }}}}"}}}}
  FILE: {{interval: 1s, template: data.j2}}
  BOUND: {{interval: 1s, with: {{x: "{call}"}}, fields: {{a: "{{{{ x }}}}"}}}}
  OTHER: {{interval: 1s, fields: {{x: "{{{{ empirical('b.csv', 'a') }}}} a.csv"}}}}
  NONE: {{interval: 1s, fields: {{x: empirical}}}}
""",
    )
    tree.write("templates/m.j2", f"{{% macro f() %}}{call}{{% endmacro %}}")
    tree.write("templates/data.j2", f'{{"x": {call}}}')
    for name in "ab":
        tree.write(f"templates/{name}.csv", "a\n1\n")
    before = tree.load()
    tree.write("templates/a.csv", "a\n2\n")
    found = plan.plan(before, tree.load())
    assert found.streams.changed == ("EXPRESSION", "STATEMENT", "MACRO", "FILE", "BOUND")
    assert found.streams.unchanged == ("OTHER", "NONE")
    assert (found.entities.changed, found.entities.unchanged) == (("drawn",), ("other",))


def test_what_a_csv_file_says_of_an_entity_moves_no_other(tree: Tree) -> None:
    row = '{id: "{{ index }}", x: '
    entities = "entities:\n  first: {count: %d, key: id, fields: " + row + "1}}\n"
    entities += "  second: {count: 2, key: id, fields: " + row + "\"{{ empirical('a.csv', 'a') }}\"}}\n"
    tree.write("templates/a.csv", "a\nfirst\n")
    catalogs = []
    for count in (2, 3):
        tree.write("streams.yaml", entities % count + GOOD)
        catalogs.append(tree.load())
    assert plan.plan(*catalogs).entities.unchanged == ("second",)


def test_the_digest_tells_every_byte_and_every_name(tree: Tree) -> None:
    tree.write("streams.yaml", GOOD)
    digests = {tree.load().digest}
    assert tree.load().digest in digests
    tree.write("templates/a.j2", "")
    digests.add(tree.load().digest)
    (tree.templates / "a.j2").rename(tree.templates / "b.j2")
    digests.add(tree.load().digest)
    tree.write("streams.yaml", GOOD + "\n")
    digests.add(tree.load().digest)
    for text in ("a\n1\n", "a\n2\n"):
        tree.write("templates/a.csv", text)
        digests.add(tree.load().digest)
    assert len(digests) == 6


# What is remembered


def test_a_stream_that_did_not_change_is_the_same_object_after_a_reload(tree: Tree) -> None:
    tree.write("streams.yaml", GOOD + "  B: {interval: 1s, fields: {n: 1}}\n")
    before = tree.load().streams
    tree.write("streams.yaml", "# moved by a line\n" + GOOD + "  B: {interval: 2s, fields: {n: 1}}\n")
    after = tree.load().streams
    assert after["A"] is before["A"]
    assert after["B"].interval == 2000


@pytest.mark.parametrize(
    "change",
    ["defaults: {priority: LOW}\n", "entities: {svp: {count: 1, key: id, fields: {id: 1}}}\n"],
    ids=["defaults", "entities"],
)
def test_what_a_stream_depends_on_is_part_of_the_memory(tree: Tree, change: str) -> None:
    tree.write("streams.yaml", GOOD)
    before = tree.load().streams["A"]
    tree.write("streams.yaml", change + GOOD)
    assert tree.load().streams["A"] is not before


@pytest.mark.parametrize(
    ("first", "second"), [("{a: 1, b: 2}", "{b: 2, a: 1}"), ("{a: 1}", "{a: 1.0}"), ("{a: 1}", "{a: true}")]
)
def test_the_memory_tells_apart_what_python_calls_equal(tree: Tree, first: str, second: str) -> None:
    tree.write("streams.yaml", f"streams:\n  A: {{interval: 1s, fields: {first}}}\n")
    before = tree.load().streams["A"].fields
    tree.write("streams.yaml", f"streams:\n  A: {{interval: 1s, fields: {second}}}\n")
    assert repr(tree.load().streams["A"].fields) != repr(before)


def test_a_refused_load_says_the_same_again(tree: Tree) -> None:
    tree.write("streams.yaml", GOOD + "    colour: red\n")
    assert tree.problems() == tree.problems()


# What is odd


def test_a_profile_that_no_file_names_is_a_warning(tree: Tree) -> None:
    tree.write("streams.yaml", "profiles: {production: {speed: 1}, staging: {speed: 5}}\n" + GOOD)
    assert tree.load().warnings == tree.load("production").warnings == ()
    (warning,) = tree.load("productoin").warnings
    assert (warning.line, warning.column, warning.hint) == (1, 1, "did you mean production?")
    assert warning.message.startswith("profiles: none has the name 'productoin' that REGSTREAM_ENV gives")
    (warning,) = tree.load("foo").warnings
    assert warning.hint == "there are production, staging"


def test_a_set_of_a_stream_that_is_not_enabled_is_a_warning(tree: Tree) -> None:
    tree.write("streams.yaml", GOOD + "    enabled: false\n")
    step = "name: X\nsteps:\n  - set: {stream: A, fields: {n: 5}}\n  - wait: 1s\n"
    tree.write("scenarios/x.yaml", step)
    (warning,) = tree.load().warnings
    assert (warning.line, warning.column) == (3, 19) and "enabled: false" in warning.message
    tree.write("streams.yaml", GOOD)
    assert tree.load().warnings == ()


def test_a_state_that_lasts_a_few_milliseconds_names_the_unit(tree: Tree) -> None:
    case = "entities: {case: {count: 2, key: id, fields: {id: '{{ index }}'}, states: {A: {lasts: 5}}}}\n"
    tree.write("streams.yaml", case + GOOD)
    assert tree.problems() == ["streams.yaml:1:80: exactly: must be at least 1000, not 5 (write 5s)"]


def test_what_was_not_tried_is_a_note_and_no_warning(tree: Tree) -> None:
    tree.write("streams.yaml", "entities: {a: {count: 900000, key: id, fields: {id: '{{ index }}'}}}\n" + GOOD)
    catalog = tree.load()
    assert catalog.warnings == ()
    (note,) = catalog.notes
    assert str(note).startswith(f"{tree.streams}:1:23: note: count: ") and "of 900,000 rows were tried" in str(note)


def test_rows_and_events_are_tried_again_only_of_what_changed(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    entity = "entities:\n  svp: {count: 3, key: id, fields: {id: '{{ index }}', n: 1}}\n"
    other = '  B:\n    interval: 1s\n    with: {s: "{{ pick(\'svp\') }}"}\n    fields: {n: "{{ 10 // s.n }}"}\n'
    tree.write("streams.yaml", entity + GOOD + other)
    tree.load()
    seen: list[str] = []
    rows, events = trial.Trial.rows, trial.Trial.events
    monkeypatch.setattr(trial.Trial, "rows", lambda self, spec, made: seen.append(spec.name) or rows(self, spec, made))
    monkeypatch.setattr(
        trial.Trial, "events", lambda self, spec, made: seen.append(spec.name) or events(self, spec, made)
    )
    tree.load()
    assert seen == []
    tree.write("streams.yaml", entity + GOOD + other.replace("10", "11"))
    tree.load()
    assert seen == ["svp", "B"], "the rows are there for the stream that may see them"
    tree.write("streams.yaml", entity.replace("n: 1", "n: 0") + GOOD + other)
    assert len(tree.problems()) == 1


def test_a_field_that_a_template_file_does_not_make_is_warned_of(tree: Tree) -> None:
    tree.write("streams.yaml", "streams:\n  T: {interval: 1s, template: t.j2}\n")
    tree.write("templates/t.j2", '{"amount": {{ uniform(1, 5) | round(2) }}, "name": "x"}')
    steps = "[{burst: {stream: T, count: 2, fields: {amuont: 5}}}, {set: {stream: T, fields: {name: y}, for: 3s}}]"
    tree.write("scenarios/s.yaml", f"name: S\ndescription: d\nsteps: {steps}\n")
    (warning,) = tree.load().warnings
    assert (warning.line, warning.column) == (3, 56)
    assert warning.message == "the first events of stream 'T' have no field 'amuont'"
    assert warning.hint == "did you mean amount?"
