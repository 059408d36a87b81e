"""The callback for PyTorch Lightning records what a plain loop would have."""

import os

import numpy as np
import pytest

from gradiometer import record
from gradiometer.quantities import PER_LAYER

if os.environ.get("GRADIOMETER_REQUIRE_FRAMEWORKS") == "1":
    import lightning.pytorch as pl
    import torch
else:
    torch = pytest.importorskip("torch")
    pl = pytest.importorskip("lightning.pytorch")

from gradiometer.recording.adapters.lightning import RecordTraining

F = torch.nn.functional
pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore::UserWarning"),  # Lightning's advice
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

X = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(24) % 3


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)
        )

    def training_step(self, batch, _):
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def validation_step(self, batch, _):
        x, y = batch
        self.log("loss", F.cross_entropy(self.net(x), y))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(callback, module=None, batch=24, **settings):
    data = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(X, Y), batch_size=batch, shuffle=False
    )
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[callback], **settings,
    )  # fmt: skip
    trainer.fit(module or Classifier(), data, data)


def plain(clip=None):
    module = Classifier()
    sgd = module.configure_optimizers()
    with record(module, sgd) as recorder:
        for _ in range(3):
            sgd.zero_grad()
            F.cross_entropy(module.net(X), Y).backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(module.parameters(), clip)
            sgd.step()
    return recorder.trace


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("parts", [1, 3])
def test_lightning_records_what_a_plain_loop_would(clip, parts):
    callback = RecordTraining()
    fit(callback, batch=24 // parts, accumulate_grad_batches=parts, gradient_clip_val=clip)
    expected, found = plain(clip), callback.trace
    assert list(found["layer"].values) == ["net.0", "net.2"]
    assert list(found["activation"].values) == ["tanh", "identity"]
    assert list(found["step"].values) == [1, 2, 3]
    for name in (*PER_LAYER, "loss"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-7, err_msg=name)
    if clip:
        assert (found["clip_factor"] < 1).all()


def test_data_parallel_gradients_are_measured_as_averaged_and_before_they_are_clipped():
    callback = RecordTraining()
    try:
        fit(callback, gradient_clip_val=0.05, strategy="ddp", devices=1)
    finally:
        torch.distributed.destroy_process_group()  # which Lightning leaves behind
    expected, found = plain(0.05), callback.trace
    for name in (*PER_LAYER, "loss"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-7, err_msg=name)
    assert callback.recorder.missing == {}


def test_settings_and_a_second_fit():
    callback = RecordTraining(every=2, quantities=["grad_rms"], reference=(X, Y))
    with pytest.raises(ValueError, match="no fit has begun"):
        _ = callback.trace
    fit(callback)
    assert callback.trace["step"].values.tolist() == [1, 3]
    first = callback.recorder
    fit(callback)
    assert callback.recorder is not first


def test_a_verdict_asks_the_trainer_to_stop():
    class Breaks(Classifier):
        def training_step(self, batch, index):
            loss = super().training_step(batch, index)
            return loss * float("nan") if self.current_epoch == 1 else loss

    callback = RecordTraining(stop_on=["non-finite"], on_verdict=lambda _: None)
    fit(callback, Breaks())
    assert callback.recorder.stopped.kind == "non-finite"
    assert callback.trace["step"].values.tolist() == [1, 2]


def test_an_exception_keeps_what_was_recorded():
    class Fails(Classifier):
        def on_train_epoch_end(self):
            if self.current_epoch == 1:
                raise RuntimeError("the user's own")

    callback = RecordTraining()
    with pytest.raises(RuntimeError, match="user's own"):
        fit(callback, Fails())
    assert callback.trace["step"].values.tolist() == [1, 2]
    assert not torch.nn.modules.module._global_forward_hooks
