"""A run says what went otherwise, and where."""

from ferry_sim.scenarios import model, runner
from ferry_sim.scenarios.outcome import Outcome

HEAD = "title: t\nshows: s\nrule: r\nnodes: {n1: , n2: , n3: }\nvms: {a: {node: n1}}\n"


def run(text: str) -> Outcome:
    return runner.run(model.load(HEAD + text))


def failure(text: str) -> str:
    outcome = run(text)
    assert not outcome.violations
    return outcome.failures[0]


def test_a_step_that_is_refused_ends_the_timeline() -> None:
    said = failure("steps: [vm migrate a to n1, vm stop a]\nend: {vms: {a: {state: off}}}\n")
    assert said == "steps[0] (vm migrate a to n1): refused by rule 'same node': a is on n1 already"


def test_a_step_that_is_accepted_although_it_should_not_be() -> None:
    said = failure("steps: [{step: vm stop a, refused: memory}]\nend: {vms: {a: {state: off}}}\n")
    assert said == "steps[0] (vm stop a): it was accepted, not refused by 'memory'"


def test_a_step_that_another_rule_refuses() -> None:
    said = failure("steps: [{step: vm start a, refused: memory}]\nend: {vms: {a: {state: off}}}\n")
    assert "not refused by 'memory', but by rule 'vm off': a is on already" in said


def test_requests_need_a_coordinator() -> None:
    said = failure("steps: [coordinator kill, vm stop a]\nend: {vms: {a: {state: off}}}\n")
    assert said == "steps[1] (vm stop a): there is no coordinator to ask: start it first"


def test_what_is_off_cannot_be_turned_off() -> None:
    said = failure("steps: [power n1 off, power n1 off]\nend: {nodes: {n1: down}}\n")
    assert "n1 is off" in said


def test_an_end_that_does_not_come() -> None:
    outcome = run(
        "steps: [delay 1s]\nwithin: 3s\nend: {vms: {a: {state: off, node: n2}}, nodes: {n1: down}}\n"
    )
    assert outcome.failures == (
        "end: VM a is running, not off",
        "end: VM a has the host n1, not n2",
        "end: node n1 is up, not down",
    )


def test_events_that_are_missing_or_there() -> None:
    outcome = run("steps: [vm stop a]\nwithin: 3s\nevents: [{vm: a}, 1135]\nno_events: [{message: is off}]\n")
    assert outcome.failures == (
        "events[1]: there is no event of id 1135 after: a is off",
        "no_events: there is event of message is off: a is off",
    )


def test_moves_that_are_missing() -> None:
    said = failure("steps: [vm migrate a to n2]\nwithin: 5s\nmoves: [{vm: a, to: n3}]\n")
    assert said == "moves[0]: no move of a to n3 is completed; there were: a from n1 to n2 completed"


def test_a_guest_that_was_interrupted() -> None:
    said = failure("steps: [kill n1]\nuninterrupted: [a]\n")
    assert said == "uninterrupted: the guest of a was paused or booted anew"


def test_waiting_has_an_end() -> None:
    text = "steps: [power n1 off, wait for n1 gone 3s]\nend: {nodes: {n1: gone}}\n"
    assert failure(text) == "steps[1] (wait for n1 gone 3s): after 3 s n1 is down"
    said = failure("steps: [power n1 off, wait 1s]\nend: {nodes: {n1: down}}\n")
    assert (
        said == "steps[1] (wait 1s): after 1 s something is still under way: the loss of n1 is not known yet"
    )


def test_what_is_not_waited_for_is_looked_at_in_the_end() -> None:
    text = "steps: [vm create b memory=1GiB &]\nend: {nodes: {n1: up}}\n"
    assert "steps[0] (vm create b memory=1GiB &): refused by rule 'memory'" in failure(text)


def test_lists_of_rules_are_added_to_and_taken_from() -> None:
    outcome = run(
        "steps: [rule add a anti-affinity=web, rule add a anti-affinity=db,\n"
        "  rule remove a anti-affinity=web, vm create b anti-affinity=db,\n"
        "  cluster set enforced-anti-affinity=true, {step: vm migrate b to n1, refused: anti-affinity}]\n"
        "end: {vms: {b: {state: running, node: [n2, n3]}}}\n"
    )
    assert outcome.ok, outcome


def test_a_vm_is_relocated_by_a_cold_start() -> None:
    outcome = run("steps: [vm relocate a to n3]\nend: {vms: {a: {state: running, node: n3}}}\n")
    assert outcome.ok, outcome
    assert outcome.seen.interrupted == {"a"}
