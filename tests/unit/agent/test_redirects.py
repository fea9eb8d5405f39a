"""A host says for some time where guests went, of so many and no more."""

from ferry_agent.redirects import REDIRECT_S, REDIRECTS_MAX, Redirect, Redirects

AWAY = Redirect("10.0.0.2:7002", 6)


def test_a_redirect_holds_for_its_time() -> None:
    redirects = Redirects()
    redirects.add("a", AWAY, 100.0)
    assert redirects.find("a", 100.0 + REDIRECT_S - 0.1) == AWAY
    assert redirects.find("a", 100.0 + REDIRECT_S) is None
    assert redirects.find("b", 100.0) is None


def test_a_vm_that_is_back_is_not_redirected() -> None:
    redirects = Redirects()
    redirects.add("a", AWAY, 100.0)
    redirects.forget("a")
    redirects.forget("never here")
    assert redirects.find("a", 100.0) is None


def test_the_last_place_counts() -> None:
    redirects = Redirects()
    redirects.add("a", AWAY, 100.0)
    later = Redirect("10.0.0.3:7002", 8)
    redirects.add("a", later, 110.0)
    assert redirects.find("a", 110.0 + REDIRECT_S - 0.1) == later


def test_the_oldest_are_forgotten_beyond_a_number() -> None:
    redirects = Redirects()
    for number in range(REDIRECTS_MAX):
        redirects.add(f"vm{number}", AWAY, 100.0)
    redirects.add("vm0", AWAY, 101.0)
    redirects.add("another", AWAY, 101.0)
    assert redirects.find("vm1", 101.0) is None
    assert redirects.find("vm0", 101.0) == redirects.find("another", 101.0) == AWAY
