"""A step as people type it: one line of words, parsed into a value of ``ferry_sim.scenarios.steps``.

::

    power N on|off            kill N    shutdown N    reboot N    freeze N|coordinator DURATION
    network N on|off          network N on|off to|from|with NODE|coordinator|witness
    coordinator kill|start    witness kill|start
    vm create NAME [memory=16MiB] [node=N] [start=false] [workload=idle] [RULE=VALUE ...]
              [fill=zero|random|/PATH] [write-rate=R] [read-rate=R] [working-set=SIZE]
              [access=uniform|sequential|hotset] [compressibility=0.5]
    vm start|stop|remove|cancel|crash V
    vm migrate V to N|best [option=tcpip] [pass-limit=10] [blackout-allowed=50ms] [verify=true]
               [throttle=true] [switch-at-minimum=true] [abort-over-blackout=true]
    vm relocate V to N        vm set V RULE=VALUE ...
    rule add|remove V possible|preferred|anti-affinity=NAME[,NAME ...]
    node pause N              node drain N [to=M] [within=10m] [stuck=stay|stop]
    node resume N [failback]  node evict N [force]
    cluster set [enforced-anti-affinity=true] [quarantine-threshold=3]
                [quarantine-period=1h] [quarantine-duration=2h]
    quorum set [dynamic=true] [witness=true]
    delay DURATION            wait [DURATION]    wait for NAME STATE [DURATION]

A request that ends in ``&`` is not waited for. RULE is a word of ``ferry_sim.scenarios.role_words``.
"""

from collections.abc import Callable, Mapping
from typing import Final

from ferry_sim.scenarios import guest_words, move_words, role_words, steps
from ferry_sim.scenarios.fields import GONE
from ferry_sim.scenarios.steps import Action, Pause, Step, Way
from ferry_types.drains import Stuck
from ferry_types.migrations import MigrationState
from ferry_types.names import validate_name
from ferry_types.quorum import WITNESS
from ferry_types.roles import PRIORITY, Priority
from ferry_types.units import parse_duration, parse_size
from ferry_types.vms import NodeState, VmState

COORDINATOR: Final = "coordinator"
RESERVED: Final = frozenset({COORDINATOR, WITNESS})
"""Names that no node of a scenario bears."""

MEMORY_DEFAULT: Final = "16MiB"
WAIT_S_DEFAULT: Final = 60.0
SECONDS_MAX: Final = 30 * 86400.0
STEP_CHARACTERS_MAX: Final = 1000

STATES: Final = frozenset({*VmState, *NodeState, *MigrationState, GONE})
"""What may be waited for."""

Words = list[str]


def parse_step(text: str) -> Step:
    """The step of a line of words. Raises ValueError, which says what is wrong and what would be right."""
    if len(text) > STEP_CHARACTERS_MAX:
        raise ValueError(f"a step has at most {STEP_CHARACTERS_MAX} characters")
    words = text.split()
    background = bool(words) and words[-1] == "&"
    if background:
        words.pop()
    if not words:
        raise ValueError("the step is empty")
    parse = _VERBS.get(words[0])
    if parse is None:
        raise ValueError(f"there is no step {words[0]!r}: a step begins with {', '.join(_VERBS)}")
    action = parse(words[1:])
    if background and isinstance(action, steps.Fault | Pause):
        raise ValueError(f"{words[0]} cannot be left to itself: & stands behind requests to the cluster")
    return Step(" ".join(words), action, background)


# --- words ----------------------------------------------------------------------------------------


def _usage(form: str) -> ValueError:
    return ValueError(f"write it as: {form}")


def _name(word: str, what: str) -> str:
    return validate_name(word, f"{what} name")


def _seconds(word: str) -> float:
    seconds = parse_duration(word)
    if seconds > SECONDS_MAX:
        raise ValueError(f"{word} is too long: at most {SECONDS_MAX / 86400:.0f} days")
    return seconds


def _choice(word: str, form: str, *choices: str) -> str:
    if word not in choices:
        raise _usage(form)
    return word


def _pairs(words: Words, known: tuple[str, ...]) -> dict[str, str]:
    """``key=value ...``, each key known and there once. Raises ValueError."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in known:
            raise ValueError(f"{word!r} is not one of {', '.join(f'{name}=' for name in known)}")
        if key in found:
            raise ValueError(f"{key}= is there twice")
        found[key] = value
    return found


# --- faults ---------------------------------------------------------------------------------------


def _power(words: Words) -> Action:
    form = "power NODE on|off"
    if len(words) != 2:
        raise _usage(form)
    return steps.Power(_name(words[0], "node"), _choice(words[1], form, "on", "off") == "on")


def _on_node(make: Callable[[str], Action], verb: str) -> Callable[[Words], Action]:
    def parse(words: Words) -> Action:
        if len(words) != 1:
            raise _usage(f"{verb} NODE")
        return make(_name(words[0], "node"))

    return parse


def _network(words: Words) -> Action:
    form = "network NODE on|off, or network NODE on|off to|from|with NODE|coordinator|witness"
    if len(words) not in (2, 4):
        raise _usage(form)
    node, on = _name(words[0], "node"), _choice(words[1], form, "on", "off") == "on"
    if len(words) == 2:
        return steps.Network(node, on, ())
    other = _name(words[3], "node")
    if other == node:
        raise ValueError(f"{node} always reaches itself")
    ways = {
        "to": (Way(node, other),),
        "from": (Way(other, node),),
        "with": (Way(node, other), Way(other, node)),
    }
    return steps.Network(node, on, ways[_choice(words[2], form, *ways)])


def _nic(words: Words) -> Action:
    form = "nic NODE NIC up|down"
    if len(words) != 3:
        raise _usage(form)
    up = _choice(words[2], form, "up", "down") == "up"
    return steps.TurnNic(_name(words[0], "node"), _name(words[1], "NIC"), up)


def _freeze(words: Words) -> Action:
    if len(words) != 2:
        raise _usage("freeze NODE|coordinator DURATION")
    return steps.Freeze(_name(words[0], "node"), _seconds(words[1]))


def _process(make: Callable[[bool], Action], name: str) -> Callable[[Words], Action]:
    def parse(words: Words) -> Action:
        form = f"{name} kill|start"
        if len(words) != 1:
            raise _usage(form)
        return make(_choice(words[0], form, "kill", "start") == "start")

    return parse


# --- VMs ------------------------------------------------------------------------------------------

_ON_VM: Final[Mapping[str, Callable[[str], Action]]] = {
    "start": steps.StartVm,
    "stop": steps.StopVm,
    "remove": steps.RemoveVm,
    "cancel": steps.CancelMove,
    "crash": steps.CrashGuest,
}


def _vm(words: Words) -> Action:
    match words:
        case [verb, name] if verb in _ON_VM:
            return _ON_VM[verb](_name(name, "VM"))
        case ["migrate", name, "to", node, *pairs]:
            options = move_words.parse_options(_pairs(pairs, move_words.WORDS))
            return steps.MigrateVm(_name(name, "VM"), _name(node, "node"), options)
        case ["relocate", name, "to", node]:
            return steps.Relocate(_name(name, "VM"), _name(node, "node"))
        case ["set", name, *pairs] if pairs:
            changes = role_words.parse_changes(_pairs(pairs, role_words.WORDS))
            return steps.SetVm(_name(name, "VM"), changes)
        case ["create", name, *pairs]:
            return _create(_name(name, "VM"), pairs)
    raise _usage(
        f"vm {'|'.join(_ON_VM)} VM, {move_words.FORM}, vm relocate VM to NODE, "
        "vm set VM RULE=VALUE ..., vm create VM [memory=SIZE] [node=NODE] [start=false] [RULE=VALUE ...]"
    )


def _create(name: str, words: Words) -> steps.CreateVm:
    pairs = _pairs(words, ("memory", "node", "start", "workload", *guest_words.WORDS, *role_words.WORDS))
    spec = guest_words.make_spec(
        name,
        parse_size(pairs.get("memory", MEMORY_DEFAULT)),
        pairs.get("workload", "idle"),
        role_words.parse_priority(pairs.get(PRIORITY, Priority.MEDIUM)),
        *guest_words.parse_guest(pairs),
    )
    node = pairs.get("node", "")
    start = role_words.parse_truth(pairs.get("start", "true"))
    rules = [(word, text) for word, text in pairs.items() if word in role_words.RULE_WORDS]
    return steps.CreateVm(spec, _name(node, "node") if node else "", start, role_words.parse_rules(rules))


def _rule(words: Words) -> Action:
    form = f"rule add|remove VM {'|'.join(role_words.LISTS)}=NAME[,NAME ...]"
    if len(words) != 3:
        raise _usage(form)
    add = _choice(words[0], form, "add", "remove") == "add"
    ((word, text),) = _pairs(words[2:], tuple(role_words.LISTS)).items()
    names = role_words.parse_names(text, word)
    if not names:
        raise _usage(form)
    return steps.ChangeList(_name(words[1], "VM"), role_words.LISTS[word], names, add)


# --- nodes and cluster ----------------------------------------------------------------------------


def _node(words: Words) -> Action:
    match words:
        case ["pause", name]:
            return steps.PauseNode(_name(name, "node"))
        case ["drain", name, *pairs]:
            return _drain(_name(name, "node"), _pairs(pairs, ("to", "within", "stuck")))
        case ["resume", name, *rest] if rest in ([], ["failback"]):
            return steps.ResumeNode(_name(name, "node"), failback=bool(rest))
        case ["evict", name, *rest] if rest in ([], ["force"]):
            return steps.EvictNode(_name(name, "node"), force=bool(rest))
    raise _usage(
        "node pause NODE, node drain NODE [to=NODE] [within=DURATION] [stuck=stay|stop], "
        "node resume NODE [failback], node evict NODE [force]"
    )


def _drain(name: str, pairs: dict[str, str]) -> steps.DrainNode:
    stuck = pairs.get("stuck", Stuck.STAY)
    if stuck not in tuple(Stuck):
        raise ValueError(f"stuck={stuck} is not one of {', '.join(Stuck)}")
    to = _name(pairs["to"], "node") if "to" in pairs else ""
    within_s = _seconds(pairs["within"]) if "within" in pairs else None
    return steps.DrainNode(name, to, within_s, Stuck(stuck))


def _cluster(words: Words) -> Action:
    known = ("enforced-anti-affinity", "quarantine-threshold", "quarantine-period", "quarantine-duration")
    if len(words) < 2 or words[0] != "set":
        raise _usage(f"cluster set {' '.join(f'[{name}=...]' for name in known)}")
    pairs = _pairs(words[1:], known)
    return steps.SetPolicy(
        role_words.parse_truth(pairs[known[0]]) if known[0] in pairs else None,
        role_words.parse_number(pairs[known[1]]) if known[1] in pairs else None,
        _seconds(pairs[known[2]]) if known[2] in pairs else None,
        _seconds(pairs[known[3]]) if known[3] in pairs else None,
    )


def _quorum(words: Words) -> Action:
    if len(words) < 2 or words[0] != "set":
        raise _usage("quorum set [dynamic=true|false] [witness=true|false]")
    pairs = _pairs(words[1:], ("dynamic", "witness"))
    chosen = {key: role_words.parse_truth(text) for key, text in pairs.items()}
    return steps.SetQuorum(chosen.get("dynamic"), chosen.get("witness"))


# --- time -----------------------------------------------------------------------------------------


def _delay(words: Words) -> Action:
    if len(words) != 1:
        raise _usage("delay DURATION")
    return steps.Delay(_seconds(words[0]))


def _wait(words: Words) -> Action:
    match words:
        case []:
            return steps.Wait(WAIT_S_DEFAULT)
        case [duration]:
            return steps.Wait(_seconds(duration))
        case ["for", name, state, *rest] if len(rest) <= 1:
            if state not in STATES:
                raise ValueError(f"{state!r} is not a state: {', '.join(sorted(STATES))}")
            return steps.WaitFor(name, state, _seconds(rest[0]) if rest else WAIT_S_DEFAULT)
    raise _usage("wait [DURATION], or wait for VM|NODE STATE [DURATION]")


_VERBS: Final[Mapping[str, Callable[[Words], Action]]] = {
    "power": _power,
    "kill": _on_node(steps.Kill, "kill"),
    "shutdown": _on_node(steps.Shutdown, "shutdown"),
    "reboot": _on_node(steps.Reboot, "reboot"),
    "freeze": _freeze,
    "network": _network,
    "nic": _nic,
    "coordinator": _process(steps.Coordinator, "coordinator"),
    "witness": _process(steps.Witness, "witness"),
    "vm": _vm,
    "rule": _rule,
    "node": _node,
    "cluster": _cluster,
    "quorum": _quorum,
    "delay": _delay,
    "wait": _wait,
}
