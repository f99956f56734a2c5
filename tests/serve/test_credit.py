from nameplate.serve.credit import FORGIVEN_SECONDS, Credit
from nameplate.serve.rates import CLIENTS

CLIENT = "192.0.2.1"


def test_answered_connections_cost_nothing() -> None:
    credit = Credit(2)
    for _ in range(10):
        assert credit.open(CLIENT)
        credit.settle(CLIENT, answered=True)
    assert credit.refused == 0


def test_connections_that_await_an_answer_are_limited() -> None:
    credit = Credit(2)
    assert [credit.open(CLIENT) for _ in range(3)] == [True, True, False]
    assert credit.open("192.0.2.2")
    credit.settle(CLIENT, answered=True)
    assert credit.open(CLIENT)
    credit.settle(CLIENT, answered=True)
    credit.ask(CLIENT)  # another request on a connection that is open
    assert not credit.open(CLIENT)
    assert (credit.refused, credit.last) == (2, CLIENT)


def test_what_ended_without_an_answer_is_forgiven_in_time() -> None:
    credit = Credit(4)
    for _ in range(4):
        credit.open(CLIENT, now=0)
        credit.settle(CLIENT, answered=False, now=0)
    assert not credit.open(CLIENT, now=0.9 * FORGIVEN_SECONDS / 4)
    assert credit.open(CLIENT, now=1.1 * FORGIVEN_SECONDS / 4)
    assert not credit.open(CLIENT, now=1.1 * FORGIVEN_SECONDS / 4)
    assert all(credit.open(CLIENT, now=2 * FORGIVEN_SECONDS) for _ in range(3))


def test_what_costs_more_counts_for_more() -> None:
    credit = Credit(10)
    credit.waste(CLIENT, 8)
    assert [credit.open(CLIENT, now=credit._debts[CLIENT].since) for _ in range(3)] == [True, True, False]


def test_a_network_is_one_client() -> None:
    credit = Credit(1)
    assert credit.open("2001:db8::1")
    assert not credit.open("2001:db8::2")
    assert credit.open("2001:db8:0:1::1")


def test_who_is_not_limited() -> None:
    assert not Credit(0).limits(CLIENT)
    assert not Credit(1, CLIENT.__eq__).limits(CLIENT)
    assert not Credit(1).limits("")  # a UNIX socket
    assert Credit(1, CLIENT.__eq__).limits("192.0.2.2")


def test_however_many_addresses_come_few_are_remembered() -> None:
    credit = Credit(1)
    for number in range(CLIENTS + 100):
        credit.open(f"client {number}")
    assert len(credit._debts) == CLIENTS
    credit.settle("client 0", answered=True)  # forgotten meanwhile
    assert credit.open("client 0")
