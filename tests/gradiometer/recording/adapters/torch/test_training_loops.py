"""However a model is trained, each step's quantities are those of that step."""

import contextlib
import copy
import threading

import numpy as np
import pytest
from tests.gradiometer.recording.adapters.torch.torch_nets import (
    NAMES,
    SLOPES,
    F,
    Net,
    agree,
    nn,
    nothing_is_left,
    rms,
    same,
    step_by_hand,
    torch,
    train,
    weights_of,
)

from gradiometer import record

pytestmark = [pytest.mark.frameworks, pytest.mark.usefixtures("double_precision")]


def test_gradient_accumulation_is_one_large_batch(batch):
    together = train(Net(nn.ReLU()), batch)
    torch.manual_seed(0)

    def in_parts(net, optimizer, batch):
        optimizer.zero_grad()
        for part in torch.arange(24).split(6):
            (F.cross_entropy(net(batch[0][part]), batch[1][part]) / 4).backward()
        optimizer.step()

    same(together, train(Net(nn.ReLU()), batch, loop=in_parts))


@pytest.mark.parametrize("zero", ["none", "zeros"])
def test_what_was_thrown_away_does_not_count(batch, zero):
    """A backward pass whose gradients are cleared before the step is no part of it."""
    alone = train(Net(nn.ReLU()), batch)
    torch.manual_seed(0)

    def with_a_false_start(net, optimizer, batch):
        F.cross_entropy(net(100 * batch[0]), batch[1]).backward()
        optimizer.zero_grad(set_to_none=zero == "none")
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=zero == "none")

    same(alone, train(Net(nn.ReLU()), batch, loop=with_a_false_start))


def test_before_and_after_clipping(batch):
    free = train(Net(nn.ReLU()), batch, steps=1)
    torch.manual_seed(0)

    def clipped(net, optimizer, batch):
        optimizer.zero_grad()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        norm = nn.utils.clip_grad_norm_(net.parameters(), 0.01)
        optimizer.norm = float(norm)
        optimizer.step()

    net = Net(nn.ReLU())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    recorder = train(net, batch, steps=1, optimizer=sgd, loop=clipped)
    same(free, recorder, but=["clip_factor", "update_ratio"])
    np.testing.assert_allclose(recorder["clip_factor"], 0.01 / sgd.norm, rtol=1e-5)
    np.testing.assert_allclose(
        recorder["update_ratio"], free["update_ratio"] * 0.01 / sgd.norm, rtol=1e-5
    )


@pytest.mark.parametrize("unscale", [False, True])
def test_scaled_losses_are_reported_unscaled(batch, unscale):
    plain = train(Net(nn.ReLU()), batch)
    torch.manual_seed(0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)

    def scaled(net, optimizer, batch):
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(net(batch[0]), batch[1])).backward()
        if unscale:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()

    same(plain, train(Net(nn.ReLU()), batch, loop=scaled))


def test_a_step_that_the_scaler_skips_is_no_step(batch):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    rounds = iter([False, True, False])
    overflowed = []

    def sometimes(net, optimizer, batch):
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(net(batch[0]), batch[1])).backward()
        if overflow := next(rounds):
            net.first.weight.grad[0, 0] = np.inf
        overflowed.append(overflow)
        scaler.step(optimizer)
        scaler.update()

    recorder = train(Net(nn.ReLU()), batch, loop=sometimes)
    assert overflowed == [False, True, False]
    torch.manual_seed(0)
    same(train(Net(nn.ReLU()), batch, steps=2), recorder)


@pytest.mark.parametrize("manual", [False, True])
def test_steps_that_a_scaler_or_a_fused_optimizer_skips(batch, manual):
    plain = train(Net(nn.ReLU()), batch, steps=1)
    torch.manual_seed(0)
    net = Net(nn.ReLU())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, fused=not manual)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    recorder = record(net, sgd)
    if not manual:
        recorder.attach()
    for overflow in (True, False):
        if manual:
            recorder.before_step()
        sgd.zero_grad()
        scaler.scale(F.cross_entropy(net(batch[0]), batch[1])).backward()
        if overflow:
            net.first.bias.grad[0] = np.inf
        scaler.step(sgd)
        scaler.update()
        if manual:
            recorder.after_step()
    recorder.detach()
    assert nothing_is_left(net)
    for name in ["loss", "grad_rms", "delta_rms", "update_ratio"]:
        np.testing.assert_allclose(recorder[name][-1], plain[name][0], rtol=1e-9)
    if manual:  # a step it is, since it is said to be
        np.testing.assert_allclose(recorder["loss"], plain["loss"][[0, 0]])
        np.testing.assert_allclose(recorder["grad_rms"], plain["grad_rms"][[0, 0]])
        assert (recorder["update_ratio"][0] == 0).all()
    else:
        assert recorder.n_steps == 1


def test_autocast(batch):
    torch.set_default_dtype(torch.float32)
    x = batch[0].float()

    def under_autocast(net, optimizer, batch):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(net(x), batch[1])
        loss.backward()
        optimizer.step()

    net = Net(nn.ReLU())
    twin = copy.deepcopy(net)
    recorder = train(net, batch, steps=1, loop=under_autocast)
    with torch.autocast("cpu", torch.bfloat16):
        h = twin.first(x)
        h.retain_grad()
        assert h.dtype == torch.bfloat16
        loss = F.cross_entropy(twin.last(F.relu(twin.second(F.relu(h)))), batch[1])
    loss.backward()
    np.testing.assert_allclose(recorder["delta_rms"][0, 0], rms(h.grad.double()), rtol=1e-5)
    np.testing.assert_allclose(
        recorder["activation_mean"][0, 0], F.relu(h).detach().double().mean(), rtol=1e-5
    )
    np.testing.assert_allclose(
        recorder["grad_rms"][0, 0], rms(twin.first.weight.grad.double()), rtol=1e-5
    )
    assert recorder.missing == {}


@pytest.mark.parametrize("how", ["module", "in place", "function"])
def test_compiled_models(batch, how):
    plain = train(Net(nn.ReLU()), batch, steps=5, every=2)
    torch.manual_seed(0)
    torch._dynamo.reset()
    compiled_runs = []

    def backend(graph, _inputs):
        def run(*args):
            compiled_runs.append(1)
            return graph(*args)

        return run

    net = Net(nn.ReLU())
    loop = None
    if how == "module":
        net = torch.compile(net, backend=backend)
    elif how == "in place":
        net.compile(backend=backend)
    else:
        compute = torch.compile(lambda x, y: F.cross_entropy(net(x), y), backend=backend)

        def loop(net, optimizer, batch):
            optimizer.zero_grad()
            compute(*batch).backward()
            optimizer.step()

    recorder = train(net, batch, steps=5, every=2, loop=loop)
    same(plain, recorder)
    assert list(recorder.trace["layer"].values) == NAMES
    assert compiled_runs, "steps that are not recorded run compiled"


class Threads(nn.Module):
    """Data parallel, as wrappers do it: parts of the batch, in threads, on the same weights."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        parts, found = x.chunk(3), [None] * 3

        def run(i):
            found[i] = self.module(parts[i])

        threads = [threading.Thread(target=run, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return torch.cat(found)


@pytest.mark.parametrize("wrapper", [nn.DataParallel, Threads])
def test_data_parallel_wrappers(batch, wrapper):
    plain = train(Net(nn.ReLU()), batch)
    torch.manual_seed(0)
    recorder = train(wrapper(Net(nn.ReLU())), batch)
    same(plain, recorder)
    assert list(recorder.trace["layer"].values) == NAMES


def test_distributed_data_parallel(batch):
    """Gradients are measured when they have been averaged, and before they are clipped."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

    def loop(model, optimizer, batch):
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(model(batch[0]), batch[1])).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        scaler.step(optimizer)
        scaler.update()

    def halved(_, bucket):  # as if another process had no gradient
        future = torch.futures.Future()
        future.set_result(bucket.buffer() / 2)
        return future

    plain = train(Net(nn.ReLU()), batch, loop=loop)
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        for which in ("wrapper", "module"):
            torch.manual_seed(0)
            net = Net(nn.ReLU())
            model = nn.parallel.DistributedDataParallel(net)
            model.register_comm_hook(None, halved)
            sgd = torch.optim.SGD(net.parameters(), lr=0.1)
            with record(model if which == "wrapper" else net, sgd) as recorder:
                for _ in range(3):
                    loop(model, sgd, batch)
            np.testing.assert_allclose(recorder["grad_rms"], plain["grad_rms"] / 2, rtol=1e-5)
            np.testing.assert_allclose(recorder["clip_factor"], plain["clip_factor"] * 2, rtol=1e-4)
            assert recorder.missing == {}
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("no_grad", [True, False])
def test_looks_at_validation_data_do_not_count(batch, no_grad):
    plain = train(Net(nn.ReLU()), batch)
    torch.manual_seed(0)

    def validating(net, optimizer, batch):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(batch[0]), batch[1])
        net.eval()
        with torch.no_grad() if no_grad else contextlib.nullcontext():
            net(100 * batch[0])
        net.train()
        loss.backward()
        net(7 * batch[0])
        optimizer.step()

    same(plain, train(Net(nn.ReLU()), batch, loop=validating))


@pytest.mark.parametrize("where", ["forward", "loss", "backward", "before the step"])
def test_exceptions_in_a_training_loop(batch, where):
    plain = train(Net(nn.ReLU()), batch)
    torch.manual_seed(0)
    net = Net(nn.ReLU())
    failing = [True]

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            raise RuntimeError("in backward")

    def loop(net, optimizer, batch):
        if failing:
            failing.clear()
            handle = None
            if where == "forward":

                def fail(*_):
                    raise RuntimeError("in forward")

                handle = net.second.register_forward_hook(fail)
            with pytest.raises(RuntimeError):  # noqa: PT012
                try:
                    out = net(50 * batch[0])
                    if where == "loss":
                        raise RuntimeError
                    if where == "backward":
                        out = out + Fails.apply(net.first.weight).sum()
                    F.cross_entropy(out, batch[1]).backward()
                    raise RuntimeError
                finally:
                    if handle is not None:
                        handle.remove()
        optimizer.zero_grad()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        optimizer.step()

    same(plain, train(net, batch, loop=loop))


def test_an_exception_ends_the_block_and_keeps_what_was_recorded(batch):
    net = Net(nn.ReLU())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(KeyError), record(net, sgd) as recorder:  # noqa: PT012
        for step in range(5):
            sgd.zero_grad()
            F.cross_entropy(net(batch[0]), batch[1]).backward()
            if step == 2:
                raise KeyError
            sgd.step()
    assert list(recorder.trace["step"].values) == [1, 2]
    assert nothing_is_left(net)


def test_before_step_and_after_step(batch):
    plain = train(Net(nn.ReLU()), batch, reference=batch)
    torch.manual_seed(0)
    net = Net(nn.ReLU())
    recorder = record(net, reference=batch)
    for _ in range(3):
        recorder.before_step()
        net.zero_grad()
        loss = F.cross_entropy(net(batch[0]), batch[1])
        loss.backward()
        with torch.no_grad():  # an optimiser of one's own
            for p in net.parameters():
                p -= 0.1 * p.grad
        recorder.after_step()
        assert nothing_is_left(net)
    same(plain, recorder)
    np.testing.assert_array_equal(plain["accuracy"], recorder["accuracy"])


def test_the_callback_form_is_told_the_loss(batch):
    net = Net(nn.ReLU())
    recorder = record(net)
    recorder.before_step()
    F.cross_entropy(net(batch[0]), batch[1]).backward()
    recorder.after_step(loss=2.5)
    assert recorder["loss"].tolist() == [2.5]
    with pytest.raises(RuntimeError, match=r"after_step\(\) without before_step\(\)"):
        recorder.after_step()
    with record(net) as other, pytest.raises(RuntimeError, match="sees the steps by itself"):
        other.before_step()


@pytest.mark.parametrize("kind", ["SGD", "Adam", "LBFGS"])
def test_closures(batch, kind):
    def made():
        torch.manual_seed(0)
        net = Net(nn.Tanh())
        settings = {"max_iter": 1} if kind == "LBFGS" else {}
        return net, getattr(torch.optim, kind)(net.parameters(), lr=0.1, **settings)

    net, optimizer = made()
    plain = train(net, batch, optimizer=optimizer) if kind != "LBFGS" else None

    def with_closure(net, optimizer, batch):
        def closure():
            optimizer.zero_grad()
            loss = F.cross_entropy(net(batch[0]), batch[1])
            loss.backward()
            return loss

        optimizer.step(closure)

    net, optimizer = made()
    recorder = train(net, batch, optimizer=optimizer, loop=with_closure)
    if plain is not None:
        same(plain, recorder)
    torch.manual_seed(0)
    _, first = step_by_hand(Net(nn.Tanh()), *batch, 0.1, SLOPES["tanh"])
    for quantities in first.values():
        del quantities["update_ratio"]
    agree(recorder, 1, first)


def test_of_several_optimizers_only_ones_own_counts(batch):
    net, other = Net(nn.ReLU()), Net(nn.ReLU())
    sgd, another = (torch.optim.SGD(n.parameters(), lr=0.1) for n in (net, other))

    def both(net, optimizer, batch):
        for n, o in ((other, another), (net, sgd)):
            o.zero_grad()
            F.cross_entropy(n(batch[0]), batch[1]).backward()
            o.step()

    with record(net) as recorder:
        for _ in range(2):
            both(net, sgd, batch)
    assert recorder["grad_rms"].shape == (2, 3)
    torch.manual_seed(0)
    same(train(Net(nn.ReLU()), batch, steps=2), recorder, but=["loss"])


def test_two_optimizers_make_one_step(batch):
    together = train(Net(nn.ReLU()), batch, steps=3)
    torch.manual_seed(0)

    def made():
        torch.manual_seed(0)
        net = Net(nn.ReLU())
        hidden = [*net.first.parameters(), *net.second.parameters()]
        return net, [torch.optim.SGD(p, lr=0.1) for p in (hidden, net.last.parameters())]

    def step(net, optimizers, batch):
        net.zero_grad()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        for optimizer in optimizers:
            optimizer.step()

    net, both = made()
    same(together, train(net, batch, steps=3, optimizer=both, loop=step))
    net, both = made()
    every = train(net, batch, steps=3, optimizer=both, loop=step, every=2)
    assert every.trace["step"].values.tolist() == [1, 3]
    net, both = made()
    with record(net) as unnamed:  # the second one's step, with the same gradients, is not counted
        for _ in range(3):
            step(net, both, batch)
    np.testing.assert_allclose(unnamed["grad_rms"], together["grad_rms"])
    assert "name both" in unnamed.missing["(model)"]["update_ratio"]
    assert "nonfinite_step" not in unnamed.trace.attrs
    assert np.isnan(unnamed["update_ratio"]).tolist() == [[False, False, True]] * 3
    assert "does not update it" in unnamed.missing["last"]["update_ratio"]


def test_gradients_of_inputs_do_not_count(batch):
    """A gradient penalty asks for gradients on the way, and goes back through them."""

    def by_hand():
        torch.manual_seed(0)
        net = Net(nn.Tanh())
        x = batch[0].clone().requires_grad_()
        h = net.first(x)
        out = net.last(torch.tanh(net.second(torch.tanh(h))))
        (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        loss = F.cross_entropy(out, batch[1]) + slope.square().sum()
        return map(rms, torch.autograd.grad(loss, [h, net.first.weight]))

    def penalised(net, optimizer, batch):
        optimizer.zero_grad()
        x = batch[0].clone().requires_grad_()
        out = net(x)
        (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        (F.cross_entropy(out, batch[1]) + slope.square().sum()).backward()
        optimizer.step()

    torch.manual_seed(0)
    recorder = train(Net(nn.Tanh()), batch, steps=1, loop=penalised)
    delta, gradient = by_hand()
    np.testing.assert_allclose(recorder["delta_rms"][0, 0], delta, rtol=1e-9)
    np.testing.assert_allclose(recorder["grad_rms"][0, 0], gradient, rtol=1e-9)


def test_two_backward_passes_through_one_call_are_refused(batch):
    def twice(net, optimizer, batch):
        optimizer.zero_grad()
        out = net(batch[0])
        F.cross_entropy(out, batch[1]).backward(retain_graph=True)
        out.square().mean().backward()
        optimizer.step()

    recorder = train(Net(nn.ReLU()), batch, steps=1, loop=twice)
    assert np.isnan(recorder["delta_rms"]).all()
    assert np.isfinite(recorder["grad_rms"]).all()
    assert "two backward passes" in recorder.missing["first"]["delta_rms"]


def test_losses_that_are_computed_inside_the_model(batch):
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net(nn.ReLU())

        def forward(self, x, y):
            return F.cross_entropy(self.net(x), y)

    def loop(model, optimizer, batch):
        optimizer.zero_grad()
        model(*batch).backward()
        optimizer.step()

    plain = train(Net(nn.ReLU()), batch)
    torch.manual_seed(0)
    recorder = train(Whole(), batch, loop=loop)
    same(plain, recorder)
    assert recorder.missing == {}


def test_losses_that_are_not_one_number(batch):
    def loss(out, y):
        return F.cross_entropy(out, y, reduction="none")

    def loop(net, optimizer, batch):
        optimizer.zero_grad()
        loss(net(batch[0]), batch[1]).backward(torch.ones(24))
        optimizer.step()

    recorder = train(Net(nn.ReLU()), batch, loop=loop)
    assert np.isnan(recorder["loss"]).all()
    assert "not one number" in recorder.missing["(model)"]["loss"]


@pytest.mark.parametrize("quantities", [None, ["loss"], ["loss", "delta_rms"]])
@pytest.mark.parametrize("frozen", [False, True])
def test_only_losses_that_reach_the_model_count(batch, quantities, frozen):
    """Whichever of its parameters are trained, and whoever else trains beside it."""
    net, other = Net(nn.ReLU()), Net(nn.ReLU())
    if frozen:
        for weight in weights_of(net):
            weight.requires_grad_(False)

    def loop(net, optimizer, batch):
        optimizer.zero_grad()
        other(batch[0]).sum().backward()
        loss = F.cross_entropy(net(batch[0]), batch[1])
        loss.backward()
        loops.append(loss.item())
        loss.detach().mul_(100)  # added up, say
        other(batch[0]).sum().backward()
        optimizer.step()

    loops = []
    recorder = train(net, batch, loop=loop, quantities=quantities)
    np.testing.assert_allclose(recorder["loss"], loops)


class Gan(nn.Module):
    def __init__(self):
        super().__init__()
        self.g = nn.Linear(4, 4)
        self.d = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))


def test_two_networks_that_are_trained_in_turns(batch):
    """Each step has the gradients that came in it; none is left from the step before."""
    net, x = Gan(), batch[0]
    for_g, for_d = (torch.optim.SGD(part.parameters(), lr=0.1) for part in (net.g, net.d))
    losses = []
    with record(net) as both, record(net.d, for_d) as one:
        for _ in range(2):
            for_g.zero_grad()
            loss = F.softplus(-net.d(net.g(x))).mean()
            loss.backward()
            losses.append(loss.item())
            for_g.step()
            for_d.zero_grad()
            real = F.softplus(-net.d(x)).mean()
            real.backward()
            fake = F.softplus(net.d(net.g(x).detach())).mean()
            fake.backward()
            losses.append(real.item() + fake.item())
            of_d = [rms(net.d[0].weight.grad), rms(net.d[2].weight.grad)]
            for_d.step()
    np.testing.assert_allclose(both["loss"], losses)
    np.testing.assert_allclose(one["loss"], losses[1::2])
    np.testing.assert_allclose(one["grad_rms"][-1], of_d)
    np.testing.assert_allclose(both["grad_rms"][-1], [np.nan, *of_d])
    # what the generator's loss adds to the discriminator's old gradients
    assert np.isnan(both["grad_rms"]).tolist() == [
        [False, False, False], [True, False, False], [False, True, True], [True, False, False]
    ]  # fmt: skip
    assert "no backward pass reached it" in both.missing["g"]["grad_rms"]
    assert "were not cleared" in both.missing["d.0"]["grad_rms"]


def test_gradients_that_nobody_clears_are_missing(batch):
    net = Net(nn.ReLU())
    sgd = torch.optim.SGD(net.last.parameters(), lr=0.0)
    recorder = train(net, batch, optimizer=sgd)
    assert np.isnan(recorder["grad_rms"]).tolist() == [[False] * 3, *[[True, True, False]] * 2]
    np.testing.assert_allclose(recorder["delta_rms"], recorder["delta_rms"][[0, 0, 0]])


def test_a_batch_with_zero_gradients_is_part_of_the_step(batch):
    def loop(net, optimizer, batch):
        optimizer.zero_grad()
        (0 * net(3 * batch[0]).sum() + 5).backward()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        optimizer.step()

    half = train(Net(nn.ReLU()), batch, steps=1)
    torch.manual_seed(0)
    recorder = train(Net(nn.ReLU()), batch, steps=1, loop=loop)
    np.testing.assert_allclose(recorder["loss"], half["loss"] + 5)
    np.testing.assert_allclose(recorder["delta_rms"], half["delta_rms"] / np.sqrt(2))


def test_gradients_that_are_replaced_are_told_from_those_measured(batch):
    def loop(net, optimizer, batch):
        optimizer.zero_grad()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        for p in net.parameters():
            p.grad = 0.5 * p.grad
            p.grad = 0.5 * p.grad  # perhaps where the first one lay
        optimizer.step()

    recorder = train(Net(nn.ReLU()), batch, loop=loop)
    np.testing.assert_allclose(recorder["clip_factor"], 0.25)


def test_gradients_by_autograd_grad_under_a_scaler(batch):
    plain = train(Net(nn.ReLU()), batch)
    torch.manual_seed(0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

    def loop(net, optimizer, batch):
        loss = scaler.scale(F.cross_entropy(net(batch[0]), batch[1]))
        given = torch.autograd.grad(loss, list(net.parameters()))
        for p, gradient in zip(net.parameters(), given, strict=True):
            p.grad = gradient
        scaler.step(optimizer)
        scaler.update()

    recorder = train(Net(nn.ReLU()), batch, loop=loop)
    same(plain, recorder, names=["grad_rms", "grad_mean_abs", "update_ratio"], but=["loss"])
    assert np.isnan(recorder["clip_factor"]).all()
    assert "only the one used in the step is known" in recorder.missing["first"]["clip_factor"]


def test_gradients_of_torch_func(batch):
    def loop(net, optimizer, batch):
        def loss(parameters, x, y):
            out = torch.func.functional_call(net, parameters, (x[None],))
            return F.cross_entropy(out, y[None])

        parameters = {name: p.detach() for name, p in net.named_parameters()}
        each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(parameters, *batch)
        for name, p in net.named_parameters():
            p.grad = each[name].mean(dim=0)
        optimizer.step()

    plain = train(Net(nn.ReLU()), batch)
    torch.manual_seed(0)
    recorder = train(Net(nn.ReLU()), batch, loop=loop)
    same(plain, recorder, names=["grad_rms", "update_ratio", "weight_rms"], but=["loss"])
    assert np.isnan(recorder["delta_rms"]).all()
    assert "torch.func" in recorder.missing["first"]["delta_rms"]
