import itertools
import math
import tracemalloc

import hypothesis
import pytest
from hypothesis import strategies as st

from regstream import scenario, spec
from regstream.scenario import Apply, Emit, Entered, Raise, Revert, SetPaused
from tests import profiles

T = 1_700_000_000.0
ALERT = {"alert": {"severity": "CRITICAL", "message": "{{ now }}"}}


def burst(count: int = 1, stream: str = "A", **keys: object) -> dict:
    return {"burst": {"stream": stream, "count": count, **keys}}


def overlay(stream: str = "A", **keys: object) -> dict:
    return {"set": {"stream": stream, "interval": "2s", **keys}}


def scenario_spec(*steps: dict) -> spec.ScenarioSpec:
    return spec.ScenarioSpec.model_validate({"name": "RUN", "steps": steps})


def begin(*steps: dict) -> scenario.Run:
    return scenario.Run("run-1", scenario_spec(*steps), T)


def finish(run: scenario.Run) -> list[scenario.Action]:
    actions = []
    while run.due is not None:
        actions += run.advance(run.due)
    return actions


def doing(actions: list[scenario.Action]) -> list[scenario.Action]:
    return [action for action in actions if not isinstance(action, Entered)]


def test_steps_follow_each_other_and_the_run_ends():
    run = begin(ALERT, burst(10, fields={"x": "{{ 1 }}"}), {"wait": "5s"}, burst(2))
    assert (run.state, run.due, run.current) == ("running", T, ())
    assert doing(run.advance(T)) == [Raise(T, spec.Severity.CRITICAL, "{{ now }}"), Emit(T, "A", 10, {"x": "{{ 1 }}"})]
    assert (run.due, run.current) == (T + 5, ("steps[2] wait 5s",))
    assert run.advance(T + 4.999) == []
    assert doing(run.advance(T + 5)) == [Emit(T + 5, "A", 2, None)]
    assert (run.state, run.due, run.started, run.ended, run.error) == ("completed", None, T, T + 5, None)
    assert run.current == ()
    assert run.advance(T + 100) == []


def test_every_step_says_that_it_began():
    run = begin(
        ALERT,
        burst(3),
        overlay(batch_size=5, priority="HIGH", fields={"x": 1, "y": 2}, **{"for": "90s"}),
        {"wait": 1},
        {"parallel": [[{"pause": "B"}], [{"resume": "B"}]]},
        {"repeat": {"times": 2, "steps": [burst()]}},
    )
    assert [(step.path, step.kind, step.text) for step in finish(run) if isinstance(step, Entered)] == [
        ("steps[0]", "alert", "alert CRITICAL"),
        ("steps[1]", "burst", "burst A 3"),
        ("steps[2]", "set", "set A interval 2s batch_size 5 priority HIGH fields x, y for 90s"),
        ("steps[3]", "wait", "wait 1ms"),
        ("steps[4]", "parallel", "parallel 2 branches"),
        ("steps[4].parallel[0][0]", "pause", "pause B"),
        ("steps[4].parallel[1][0]", "resume", "resume B"),
        ("steps[5]", "repeat", "repeat 2 times"),
        ("steps[5].repeat.steps[0]", "burst", "burst A 1"),
        ("steps[5].repeat.steps[0]", "burst", "burst A 1"),
    ]


def test_a_late_call_does_not_move_what_follows():
    run = begin({"wait": "5s"}, burst(1), {"wait": "5s"}, burst(2))
    run.advance(T)
    assert doing(run.advance(T + 7.5)) == [Emit(T + 5, "A", 1, None)]
    assert run.due == T + 10
    assert doing(run.advance(T + 60)) == [Emit(T + 10, "A", 2, None)]
    assert run.ended == T + 10


def test_a_hundred_thousand_waits_add_up_exactly():
    run = begin({"repeat": {"times": 100, "steps": [{"repeat": {"times": 1000, "steps": [{"wait": 7}]}}]}}, burst())
    assert finish(run)[-1] == Emit(T + 700, "A", 1, None)


def test_branches_go_on_alone_and_join_at_the_latest():
    run = begin({"parallel": [[{"wait": "3s"}, burst(1)], [burst(2), {"wait": "1s"}, burst(3)], []]}, burst(4))
    assert doing(run.advance(T)) == [Emit(T, "A", 2, None)]
    assert run.current == ("steps[0].parallel[0][0] wait 3s", "steps[0].parallel[1][1] wait 1s")
    assert doing(run.advance(T + 1)) == [Emit(T + 1, "A", 3, None)]
    assert run.current == ("steps[0].parallel[0][0] wait 3s",)
    assert doing(run.advance(T + 9)) == [Emit(T + 3, "A", 1, None), Emit(T + 3, "A", 4, None)]


def test_at_one_moment_the_order_of_the_declaration_counts():
    inner = {"parallel": [[burst(2), {"wait": 5}, burst(6)], [burst(3)]]}
    run = begin({"parallel": [[burst(1), inner, burst(7)], [burst(4), {"wait": 5}, burst(8)], [burst(5)]]}, burst(9))
    assert [action.count for action in finish(run) if isinstance(action, Emit)] == list(range(1, 10))


def test_nothing_but_empty_branches_ends_at_once():
    run = begin({"parallel": [[], []]})
    assert doing(run.advance(T)) == []
    assert run.state == "completed"


def test_what_was_set_is_given_back_when_the_steps_end_newest_first():
    run = begin(overlay(), {"pause": "B"}, {"wait": "1s"}, {"resume": "B"}, {"wait": "1s"})
    first, second, third, *back = doing(finish(run))
    assert first == Apply(T, 1, scenario_spec(overlay()).steps[0].set)
    assert (second, third) == (SetPaused(T, 2, "B", True), SetPaused(T + 1, 3, "B", False))
    assert back == [Revert(T + 2, 3), Revert(T + 2, 2), Revert(T + 2, 1)]


def test_a_timed_overlay_ends_while_other_steps_run_and_before_them():
    run = begin(overlay(**{"for": "2s"}), {"wait": "2s"}, burst(), {"wait": "1s"})
    assert doing(finish(run))[1:] == [Revert(T + 2, 1), Emit(T + 2, "A", 1, None)]
    assert run.ended == T + 3


def test_a_timed_overlay_keeps_its_time_after_the_last_step():
    run = begin(overlay("A"), overlay("B", **{"for": "30s"}), {"pause": "C"})
    assert doing(run.advance(T))[3:] == [Revert(T, 3), Revert(T, 1)]
    assert (run.state, run.due, run.ended) == ("running", T + 30, None)
    assert run.current == ("steps[1] set B interval 2s for 30s",)
    assert run.advance(T + 31) == [Revert(T + 30, 2)]
    assert (run.state, run.ended) == ("completed", T + 30)


def test_overlays_that_end_together_are_given_back_newest_first():
    steps = [overlay(f"S{index}", **{"for": "1s"}) for index in range(12)]
    assert [action.token for action in finish(begin(*steps)) if isinstance(action, Revert)] == list(range(12, 0, -1))


def test_a_repeated_overlay_is_renewed_and_holds_until_its_last_time_is_over():
    run = begin({"repeat": {"times": 3, "steps": [overlay(**{"for": "5s"}), {"wait": "2s"}]}})
    changes = [(action.at - T, type(action), action.token) for action in doing(finish(run))]
    assert changes == [(0, Apply, 1), (2, Apply, 2), (2, Revert, 1), (4, Apply, 3), (4, Revert, 2), (9, Revert, 3)]


def test_cancel_gives_back_what_is_still_applied_and_nothing_else():
    run = begin(overlay("A"), overlay("B", **{"for": "1s"}), overlay("C", **{"for": "9s"}), {"wait": "5s"}, burst())
    run.advance(T + 2)
    assert run.cancel(T + 3.5) == [Revert(T + 3.5, 3), Revert(T + 3.5, 1)]
    assert (run.state, run.ended, run.error, run.due, run.current) == ("cancelled", T + 3.5, None, None, ())
    assert run.advance(T + 99) == run.cancel(T + 99) == run.fail(T + 99, "late") == []
    assert (run.state, run.ended) == ("cancelled", T + 3.5)


def test_cancel_after_the_steps_ends_the_last_for():
    run = begin(overlay(**{"for": "9s"}))
    run.advance(T)
    assert run.cancel(T + 1) == [Revert(T + 1, 1)]


def test_fail_says_why():
    run = begin({"pause": "A"}, {"wait": "5s"})
    run.advance(T)
    assert run.fail(T + 1, "no such stream") == [Revert(T + 1, 1)]
    assert (run.state, run.error, run.ended) == ("failed", "no such stream", T + 1)


def test_a_run_that_is_cancelled_before_it_began_has_done_nothing():
    run = begin(overlay())
    assert run.cancel(T) == []
    assert run.advance(T) == []


def test_a_clock_that_was_set_back_does_not_turn_times_round():
    run = begin(overlay(), {"wait": "5s"}, {"wait": "5s"})
    run.advance(T + 5)
    assert run.advance(T - 100) == []
    assert run.cancel(T - 100) == [Revert(T + 5, 1)]


def test_a_run_keeps_its_distances_when_the_clock_is_set():
    run = begin(overlay(**{"for": "9s"}), {"wait": "5s"}, burst())
    run.advance(T + 1)
    run.shift(-3600)
    assert (run.started, run.due) == (T - 3600, T - 3595)
    assert [action.at for action in finish(run)] == [T - 3595, T - 3595, T - 3591]
    run.shift(5)
    assert run.started == T - 3600


FOREVER = {"repeat": {"times": 10_000, "steps": [{"repeat": {"times": 10_000, "steps": [burst(), overlay()]}}]}}


def test_an_endless_run_gives_a_bounded_number_of_actions_and_goes_on_where_it_was():
    run = begin(FOREVER)
    for _ in range(5):
        assert scenario.MAX_ACTIONS <= len(run.advance(T + 1)) < scenario.MAX_ACTIONS + 10
        assert run.due == T
    assert 50 <= len(run.advance(T, 50)) < 60
    assert run.current[0].startswith("steps[0].repeat.steps[0].repeat.steps[")


def test_an_endless_run_does_not_grow():
    run = begin({"parallel": [[FOREVER], [overlay(**{"for": "9d"}), FOREVER]]})
    run.advance(T)
    tracemalloc.start()
    for _ in range(5):
        run.advance(T)
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 100_000
    assert len(run.cancel(T)) <= 3


def test_repeats_may_nest_deeply():
    steps = [burst(7)]
    for _ in range(60):
        steps = [{"repeat": {"times": 1, "steps": steps}}]
    assert doing(finish(begin(*steps))) == [Emit(T, "A", 7, None)]


# A brute-force model: the whole tree is unrolled, each action with its time and its place in the unrolled tree.

STREAMS = st.sampled_from("AB")
WAITS = st.integers(1, 6)
LEAVES = st.one_of(
    st.builds(burst, st.integers(1, 9), STREAMS),
    st.builds(lambda stream, ms: overlay(stream, **({"for": ms} if ms else {})), STREAMS, st.integers(0, 12)),
    st.builds(lambda stream: {"pause": stream}, STREAMS),
    st.builds(lambda stream: {"resume": stream}, STREAMS),
    st.builds(lambda ms: {"wait": ms}, WAITS),
    st.just(ALERT),
)
STEPS = st.recursive(
    st.lists(LEAVES, min_size=1, max_size=4),
    lambda below: st.lists(
        st.one_of(
            LEAVES,
            st.builds(lambda lists: {"parallel": lists}, st.lists(below | st.just([]), min_size=1, max_size=3)),
            st.builds(lambda times, steps: {"repeat": {"times": times, "steps": steps}}, st.integers(1, 3), below),
        ),
        min_size=1,
        max_size=4,
    ),
    max_leaves=12,
)


def unroll(steps: list[dict], at: int, key: tuple[int, ...], path: str) -> tuple[list[tuple], int]:
    """The steps that begin, as (ms, place in the unrolled tree, path, step), and when the list ends."""
    found = []
    for index, step in enumerate(steps):
        here, place = (*key, index), f"{path}[{index}]"
        found.append((at, here, place, step))
        if "wait" in step:
            at += step["wait"]
        elif "repeat" in step:
            for number in range(step["repeat"]["times"]):
                more, at = unroll(step["repeat"]["steps"], at, (*here, number), f"{place}.repeat.steps")
                found += more
        elif "parallel" in step:
            ends = []
            for number, branch in enumerate(step["parallel"]):
                more, end = unroll(branch, at, (*here, number), f"{place}.parallel[{number}]")
                found += more
                ends.append(end)
            at = max(ends)
    return found, at


def expected(steps: list[dict]) -> tuple[list[tuple], int]:
    """(ms, what) of all actions, and the end of the run; what holds a token is known by its number."""
    begun, end = unroll(steps, 0, (), "steps")
    out, held = [], {}

    def over(until: float) -> None:
        for moment in sorted({when for _, when in held.values() if when <= until}):
            gone = sorted((path for path in held if held[path][1] == moment), key=lambda path: -held[path][0])
            out.extend((moment, "revert", held.pop(path)[0]) for path in gone)

    tokens = itertools.count(1)
    for at, _, path, step in sorted(begun, key=lambda entry: entry[:2]):
        over(at)
        out.append((at, "entered", path))
        if step.keys() & {"set", "pause", "resume"}:
            before, token = held.get(path), next(tokens)
            held[path] = (token, at + step["set"]["for"] if "for" in step.get("set", {}) else math.inf)
            out.append((at, "hold", token))
            out += [(at, "revert", before[0])] if before else []
        elif step.keys() & {"burst", "alert"}:
            out.append((at, "do", str(step)))
    over(end)
    open_ended = sorted((token for token, until in held.values() if until == math.inf), reverse=True)
    out.extend((end, "revert", token) for token in open_ended)
    held = {path: kept for path, kept in held.items() if kept[1] != math.inf}
    last = max((until for _, until in held.values()), default=end)
    over(last)
    return out, last


def plain(action: scenario.Action) -> tuple:
    at = round((action.at - T) * 1000)
    assert action.at == T + at / 1000
    match action:
        case Entered():
            return at, "entered", action.path
        case Apply() | SetPaused():
            return at, "hold", action.token
        case Revert():
            return at, "revert", action.token
        case Emit():
            return at, "do", str(burst(action.count, action.stream))
        case Raise():
            return at, "do", str(ALERT)
    raise AssertionError(action)


@hypothesis.given(STEPS, st.lists(st.integers(0, 80), max_size=20))
@hypothesis.settings(max_examples=profiles.examples(400))
def test_a_run_does_what_its_unrolled_steps_say_whenever_it_is_asked(steps: list[dict], asked: list[int]):
    wanted, end = expected(steps)
    run = begin(*steps)
    got = []
    for ms in sorted(asked):
        got += run.advance(T + ms / 1000)
        assert all(entry[0] <= ms for entry in wanted[: len(got)])
        assert run.due is None or run.due > T + ms / 1000
    got += finish(run)
    assert [plain(action) for action in got] == wanted
    assert (run.state, run.ended) == ("completed", T + end / 1000)


@hypothesis.given(STEPS)
@hypothesis.settings(deadline=None)
def test_every_millisecond_or_once_at_the_end_is_the_same(steps: list[dict]):
    end = expected(steps)[1]
    often, once = begin(*steps), begin(*steps)
    ticked = [action for ms in range(end + 1) for action in often.advance(T + ms / 1000)]
    assert ticked == once.advance(T + end / 1000)
    assert often.state == once.state == "completed"


@hypothesis.given(STEPS, st.lists(st.integers(0, 80), max_size=10), st.booleans())
@hypothesis.settings(max_examples=profiles.examples(300))
def test_what_was_taken_is_given_back_once_wherever_the_run_is_cut(steps: list[dict], asked: list[int], failed: bool):
    run = begin(*steps)
    actions = [action for ms in sorted(asked) for action in run.advance(T + ms / 1000)]
    end = T + max(asked, default=0) / 1000
    actions += run.fail(end, "broken") if failed else run.cancel(end)
    actions += run.cancel(end) + run.advance(end + 1000)
    held: list[int] = []
    for action in actions:
        if isinstance(action, Apply | SetPaused):
            assert action.token not in held
            held.append(action.token)
        elif isinstance(action, Revert):
            held.remove(action.token)
    assert held == []
    assert [action.at for action in actions] == sorted(action.at for action in actions)
    assert run.current == () and run.due is None


def test_something_that_is_no_step_is_refused():
    with pytest.raises(TypeError, match="not a step"):
        scenario._describe(object())
