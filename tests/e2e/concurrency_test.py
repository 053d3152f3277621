"""Several callers at once: merged decodes, prefills between them, and sequences that are shared."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from gdn_client import NO_RETRY, Client, GdnError
from reference import load_layers, relative_error
from steps import TOLERANCE, floats, hidden, reason_of

CALLERS = 6
FLAGS = dict(slots=CALLERS * 3, max_rows=8, max_tokens=128, max_decode_tokens=4)


def together(work, count=CALLERS):
    """Runs work(0)…work(count - 1) at once, each on a thread; raises what they raise."""
    start = threading.Barrier(count)

    def run(i):
        start.wait()
        return work(i)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


class Caller:
    """Steps three sequences of its own at one layer and keeps what went in and came out of each."""

    def __init__(self, target: str, number: int, layer: int):
        self.client = Client(target, retry=NO_RETRY, timeout=60)
        self.rng, self.layer = np.random.default_rng(number), layer
        self.ids = [f"caller-{number}-{i}" for i in range(3)]
        self.inputs = [[] for _ in self.ids]
        self.outputs = [[] for _ in self.ids]

    def step(self, method: str, most: int) -> None:
        """One call of random rows: some of the sequences, in any order, with padding between."""
        order = self.rng.permutation([0, 1, 2, None, None])[: self.rng.integers(2, 6)]
        counts = self.rng.integers(0, most + 1, len(order))
        x = hidden(self.client, counts.sum(), int(self.rng.integers(1 << 30)))
        rows = self.client.rows(
            request_ids=["" if i is None else self.ids[i] for i in order],
            positions=[0 if i is None else sum(map(len, self.inputs[i])) for i in order],
            token_counts=counts,
            create=True,
        )
        answer = getattr(self.client, method)(self.layer, rows, x)
        ends = np.cumsum(counts)[:-1]
        for i, into, out in zip(order, np.split(x, ends), np.split(floats(answer.output), ends)):
            if i is None:
                assert not out.any()
            else:
                self.inputs[i].append(into)
                self.outputs[i].append(out)

    def run(self) -> None:
        for _ in range(40):
            few = self.rng.random() < 0.8
            self.step("decode" if few else "prefill", 2 if few else 20)

    def error(self, layer) -> float:
        want = [layer(np.concatenate(x))[0] for x in self.inputs]
        got = [np.concatenate(y) for y in self.outputs]
        return relative_error(np.concatenate(got), np.concatenate(want))


def test_merged_steps_are_each_their_own(served, checkpoint):
    server, layers = served("small", **FLAGS), load_layers(checkpoint("small"))
    callers = [Caller(server.target, i, layer=i % 2) for i in range(CALLERS)]
    together(lambda i: callers[i].run())
    for caller in callers:
        assert caller.error(layers[caller.layer]) < TOLERANCE[caller.client.info.data_type]
        positions = [caller.client.get_sequence(i).positions[caller.layer] for i in caller.ids]
        assert positions == [sum(map(len, x)) for x in caller.inputs]
        caller.client.release(caller.ids)
        caller.client.close()


def test_a_bad_request_does_not_harm_those_it_is_merged_with(served):
    server = served("small", **FLAGS)

    def work(i):
        name, x = f"merged-{i}", None
        with Client(server.target, retry=NO_RETRY, timeout=60) as client:
            x = hidden(client, 1, i)
            client.prefill(0, client.rows(request_ids=[name], create=True), x)
            for turn in range(50):
                rows = client.rows(request_ids=[name], positions=[1 + turn])
                if i % 2:
                    bad = np.full_like(x, np.nan) if turn % 2 else x
                    wrong = rows if turn % 2 else client.rows(request_ids=[name], positions=[99])
                    reason = reason_of(client.decode, 0, wrong, bad)
                    assert reason == ("NON_FINITE_INPUT" if turn % 2 else "POSITION_MISMATCH")
                assert np.isfinite(client.decode(0, rows, x).output).all()
            assert client.get_sequence(name).positions[0] == 51
            client.release([name])

    together(work)


def test_a_shared_sequence_takes_its_steps_one_after_another(served):
    server, turns = served("small", **FLAGS), 30
    with Client(server.target, retry=NO_RETRY, timeout=60) as client:
        x = hidden(client, 1)
        client.prefill(0, client.rows(request_ids=["shared"], create=True), x)

        def work(_):
            return [client.decode(0, client.rows(request_ids=["shared"]), x) for _ in range(turns)]

        outputs = [floats(a.output)[0] for answers in together(work) for a in answers]
        assert client.get_sequence("shared").positions[0] == 1 + CALLERS * turns
        client.prefill(0, client.rows(request_ids=["alone"], create=True), x)
        rows = (client.rows(request_ids=["alone"]) for _ in range(CALLERS * turns))
        want = [floats(client.decode(0, r, x).output)[0] for r in rows]
        client.release(["shared", "alone"])
    assert sorted(o.tobytes() for o in outputs) == sorted(w.tobytes() for w in want)


def test_the_same_step_from_many_callers_runs_once(served):
    server = served("small", **FLAGS)
    with Client(server.target, retry=NO_RETRY, timeout=60) as client:
        x = hidden(client, 1)
        client.prefill(0, client.rows(request_ids=["once"], create=True), x)
        for turn in range(20):
            rows = client.rows(request_ids=["once"], positions=[1 + turn])
            answers = together(lambda _, rows=rows: client.decode(0, rows, x))
            assert sum(a.replayed_rows for a in answers) == CALLERS - 1
            assert len({a.output.tobytes() for a in answers}) == 1
        assert client.get_sequence("once").positions[0] == 21
        client.release(["once"])


def test_a_race_for_the_last_slots(served):
    server = served("small", **FLAGS)

    def work(i):
        with Client(server.target, retry=NO_RETRY, timeout=60) as client:
            rows = client.rows(request_ids=[f"race-{i}-{k}" for k in range(4)], create=True)
            try:
                return len(client.prefill(0, rows, hidden(client, 4)).slots)
            except GdnError as e:
                assert e.reason == "SLOTS_EXHAUSTED"
                return 0

    assert sum(together(work)) == FLAGS["slots"] // 4 * 4
    with Client(server.target) as client:
        left = list(client.list_sequences())
        assert len(left) == FLAGS["slots"] // 4 * 4
        client.release([s.request_id for s in left])


def test_streams_cancelled_at_any_moment(served):
    """Before, while and after their message arrives; the server goes on answering."""
    server = served("small", **FLAGS)

    def work(i):
        rng, never = np.random.default_rng(i), threading.Event()
        with Client(server.target, retry=NO_RETRY, timeout=20) as client:
            x = hidden(client, 20)
            for _ in range(500):
                rows = client.rows(request_ids=[f"cancelled-{i}"], token_counts=[20], create=True)
                stream = client.stream()
                stream.prefill(0, rows, x)
                never.wait(rng.random() * 0.002)
                stream.cancel()
                if i == 0:
                    client.decode(0, client.rows(request_ids=["honest"], create=True), x[:1])
            client.release([f"cancelled-{i}", "honest"])

    together(work)
