import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tests.gradiometer.processes import ended
from typer.testing import CliRunner

import gradiometer
import gradiometer.recording
import gradiometer.summary
from dp import SGD
from gradiometer import experiment
from gradiometer.cli import app
from gradiometer.cli.tables import log_bars, print_report
from gradiometer.experiment import Experiment, ExperimentError, Training
from gradiometer.trace import Trace
from gradiometer.verbs import run_folder
from gradiometer.verbs.output import FIGURE_NAMES

SMALL = ["--layers", "2", "--width", "3", "--steps", "4"]
# before what another process does: it draws one figure instead of six
ONE_FIGURE = "from gradiometer.verbs import run_folder; run_folder.FIGURE_NAMES = ('decision',)"


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_run_leaves_trace_description_and_figures(tmp_path, every_figure):
    done = call("run", *SMALL, "--members", 2, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert sorted(os.listdir(tmp_path / "out")) == sorted(
        ["trace.nc", "experiment.toml", *(f"{name}.png" for name in FIGURE_NAMES)]
    )
    assert "mean |dL/dW|" in done.output
    assert "reaches the first layer" in done.output
    assert Trace.load(tmp_path / "out" / "trace.nc").dataset.sizes["member"] == 2
    again = Experiment.load(tmp_path / "out" / "experiment.toml")
    assert again == Experiment.of(layers=2, width=3, steps=4, members=2)


def test_python_and_the_command_line_give_the_same_numbers(tmp_path):
    call("run", *SMALL, "--activation", "tanh", "--out", tmp_path)
    shown = Trace.load(tmp_path / "trace.nc")
    computed = gradiometer.run(layers=2, width=3, steps=4, activation="tanh")
    np.testing.assert_array_equal(shown["delta_rms"].values, computed["delta_rms"].values)


def test_flags_take_precedence_over_the_file(tmp_path):
    (tmp_path / "e.toml").write_text('layers = 3\nactivation = "relu"\nsteps = 2\n')
    done = call("run", tmp_path / "e.toml", "--layers", 1, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    described = Experiment.load(tmp_path / "out" / "experiment.toml")
    assert (described.layers, described.activation) == (1, "relu")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--layers", 0], "layers: input should be greater than or equal to 1, got 0"),
        (["--width", -3], "width: input should be greater than or equal to 1, got -3"),
        (["--steps", 0], "steps: input should be greater than or equal to 1, got 0"),
        (["--batch-size", 0], "batch_size: input should be greater than or equal to 1, got 0"),
        (["--learning-rate", 0], "learning_rate: input should be greater than 0, got 0.0"),
        (["--activation", "sigmod"], "unknown activation 'sigmod'; did you mean 'sigmoid'?"),
        (["--init", "hee_normal"], "unknown initialiser 'hee_normal'; did you mean 'he_normal'?"),
        (["--data", "irys"], "unknown data set 'irys'; did you mean 'iris'?"),
        (["--scaling", "-1"], "'raw' or a number above 0, got -1.0"),
        (["--activation", "tanh", "--clip", "2"], "only relu can be clipped"),
        (["--clip", "inf", "--activation", "relu"], "clip: input should be a finite number"),
        (["--scaling", "word"], "'raw' or a number above 0, got 'word'"),
        (["--seed", "99999999999999999999"], "seed: input should be less than"),
        (["--batch-size", "1000000000000000"], "batch_size: input should be less than"),
        (["--optimizer", "momentum", "--hyperparameter", "beta=5"], "beta must lie in [0, 1)"),
        (["--optimizer", "momentum", "--hyperparameter", "bet=0.5"], "did you mean 'beta'?"),
        (["--hyperparameter", "beta"], "NAME=NUMBER, such as beta=0.5, got 'beta'"),
    ],
)
def test_bad_flags_are_named(flags, words, tmp_path):
    done = call("run", *flags, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert words in done.output
    assert not (tmp_path / "out").exists()


def test_a_misspelt_key_is_suggested(tmp_path):
    (tmp_path / "e.toml").write_text("layer = 3\n")
    done = call("run", tmp_path / "e.toml")
    assert done.exit_code == 2
    assert "e.toml" in done.output
    assert "unknown setting 'layer'; did you mean 'layers'?" in done.output
    (tmp_path / "f.toml").write_text("layers: 3")
    with pytest.raises(ExperimentError, match="not a TOML file"):
        Experiment.load(tmp_path / "f.toml")


def test_an_unwritable_folder_is_said_before_training(tmp_path, monkeypatch):
    def trained(*args):
        raise AssertionError("training had begun")

    monkeypatch.setattr(Training, "run", trained)
    (tmp_path / "file").write_text("not a folder")
    done = call("run", *SMALL, "--out", tmp_path / "file" / "out")
    assert done.exit_code == 2
    assert "cannot be written to" in done.output


def test_another_experiment_is_not_overwritten(tmp_path):
    assert call("run", *SMALL, "--out", tmp_path).exit_code == 0
    kept = (tmp_path / "trace.nc").read_bytes()
    refused = call("run", *SMALL, "--seed", 1, "--out", tmp_path)
    assert refused.exit_code == 2
    assert "--overwrite" in refused.output
    assert (tmp_path / "trace.nc").read_bytes() == kept
    assert call("run", *SMALL, "--seed", 1, "--out", tmp_path, "--overwrite").exit_code == 0


def interrupt_in_step_3(monkeypatch):
    update = SGD._update

    def interrupted(self, param, grad, g, i):
        if i == 3:
            raise KeyboardInterrupt
        update(self, param, grad, g, i)

    monkeypatch.setattr(SGD, "_update", interrupted)


def test_ctrl_c_saves_what_was_recorded(tmp_path, monkeypatch):
    interrupt_in_step_3(monkeypatch)
    done = call("run", *SMALL, "--out", tmp_path)
    assert done.exit_code == 130
    assert "Interrupted after step 2 of 4; what was recorded is saved" in done.output
    trace = Trace.load(tmp_path / "trace.nc")
    assert trace.dataset.sizes["step"] == 2
    assert trace.attrs["interrupted"] == 1


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_repeated_ctrl_c_saves_too(tmp_path):
    command = "from gradiometer.cli import main; main()"
    flags = ["run", "--steps", "1000000", "--every", "100", "--out", str(tmp_path)]
    with ended(
        subprocess.Popen(
            [sys.executable, "-c", command, *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "FORCE_COLOR": "1"},
        )
    ) as process:
        shown = ""
        while not re.search(r"[1-9]\d*/1000000", shown):  # a step was recorded
            shown += process.stderr.read(1)
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        printed, complaints = process.communicate(timeout=60)
    assert process.returncode == 130, complaints
    assert "what was recorded is saved" in printed
    assert Trace.load(tmp_path / "trace.nc").attrs["interrupted"] == 1
    assert "Traceback" not in complaints


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(
    "moment", ["Recorder.to_trace", "add_decision", "Trace.save", "layer_table"]
)
def test_ctrl_c_after_the_last_step_loses_nothing(tmp_path, monkeypatch, moment):
    owner, name = {
        "Recorder.to_trace": (gradiometer.recording.Recorder, "to_trace"),
        "add_decision": (experiment, "add_decision"),
        "Trace.save": (Trace, "save"),
        "layer_table": (gradiometer.summary, "layer_table"),
    }[moment]
    original = getattr(owner, name)

    def pressed(*args, **kwargs):
        if moment != "layer_table":  # by then all is saved, and the process may end
            os.kill(os.getpid(), signal.SIGINT)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, pressed)
    done = call("run", *SMALL, "--out", tmp_path)
    assert done.exit_code == (130 if moment != "layer_table" else 0)
    assert "nothing was recorded" not in done.output
    trace = Trace.load(tmp_path / "trace.nc")
    assert trace.dataset.sizes["step"] == 4
    assert not trace.attrs["interrupted"]
    assert (tmp_path / "experiment.toml").exists()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_sigterm_saves_too(tmp_path, monkeypatch):
    update = SGD._update

    def ended(self, param, grad, g, i):
        if i == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        update(self, param, grad, g, i)

    monkeypatch.setattr(SGD, "_update", ended)
    done = call("run", *SMALL, "--out", tmp_path)
    assert done.exit_code == 128 + signal.SIGTERM
    assert Trace.load(tmp_path / "trace.nc").dataset.sizes["step"] == 2
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_an_interrupted_repeat_keeps_the_complete_trace(tmp_path, monkeypatch):
    call("run", *SMALL, "--out", tmp_path / "out")
    interrupt_in_step_3(monkeypatch)
    done = call("run", *SMALL, "--out", tmp_path / "out")
    assert "holds other results, which are kept" in done.output
    assert Trace.load(tmp_path / "out" / "trace.nc").dataset.sizes["step"] == 4
    assert Trace.load(tmp_path / "out-2" / "trace.nc").dataset.sizes["step"] == 2


def test_what_comes_into_the_folder_meanwhile_stays(tmp_path, monkeypatch):
    original = Training.run

    def meanwhile(self, **options):
        if self.experiment.seed == 0:
            gradiometer.run(self.experiment.model_copy(update={"seed": 1}), out=tmp_path / "out")
        return original(self, **options)

    monkeypatch.setattr(Training, "run", meanwhile)
    done = call("run", *SMALL, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert Trace.load(tmp_path / "out" / "trace.nc").attrs["seed"] == 1
    assert Trace.load(tmp_path / "out-2" / "trace.nc").attrs["seed"] == 0


def test_files_of_the_users_own_are_not_replaced(tmp_path):
    (tmp_path / "heatmap.png").write_text("mine")
    done = call("run", *SMALL, "--out", tmp_path)
    assert done.exit_code == 2
    assert "holds files of no known experiment (heatmap.png)" in done.output
    assert (tmp_path / "heatmap.png").read_text() == "mine"


def run_process(*arguments, before="", **options):
    command = f"{before}\n{ONE_FIGURE}\nfrom gradiometer.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", command, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


def test_python_dash_m_works():
    done = subprocess.run(
        [sys.executable, "-m", "gradiometer", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("gradiometer ")


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_a_full_disk_is_said_after_what_was_found(tmp_path):
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"
    done = run_process("run", *SMALL, "--out", tmp_path, before=full)
    assert done.returncode == 2
    assert "Accuracy" in done.stdout
    assert "trace.nc: cannot be written (File too large)" in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_terminal_without_block_characters(tmp_path):
    done = run_process(
        "run", *SMALL, "--out", tmp_path, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert done.returncode == 0, done.stderr
    assert "The gradient reaches" in done.stdout
    assert (tmp_path / "decision.png").exists()


@pytest.mark.skipif(os.name == "nt", reason="a shell of POSIX")
@pytest.mark.parametrize("ending", ["| head -1", ">&-"])
def test_closed_standard_output(tmp_path, ending):
    flags = " ".join([*SMALL, "--out", str(tmp_path / "out")])
    code = f"{ONE_FIGURE}; from gradiometer.cli import main; main()"
    done = subprocess.run(
        f'{sys.executable} -c "{code}" run {flags} {ending}',
        shell=True,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out" / "decision.png").exists()


def test_the_table_is_not_squeezed_in_a_narrow_terminal(tmp_path):
    done = run_process("run", *SMALL, "--out", tmp_path, env={**os.environ, "COLUMNS": "40"})
    rows = [line for line in done.stdout.splitlines() if line.startswith(("  1 h1", "1 h1"))]
    assert rows, done.stdout
    assert rows[0].count("e-") + rows[0].count("e+") >= 3


def test_version():
    done = call("--version")
    assert done.exit_code == 0
    assert done.output.startswith("gradiometer 0.")


def test_every_setting_is_a_flag():
    import inspect

    from gradiometer.cli.run import run

    own = {
        "experiment",
        "out",
        "overwrite",
        "theory",
        "timeout",
        "attempt",
        "budget",
        "stop_on",
        "report",
    }
    flags = set(inspect.signature(run).parameters) - own
    fields = set(Experiment.model_fields)
    several = {"hyperparameter": "hyperparameters", "quantity": "quantities"}
    assert {several.get(flag, flag) for flag in flags} == fields


def test_hyperparameters(tmp_path):
    flags = ["--optimizer", "momentum", "--hyperparameter", "beta=0.5", "--out", tmp_path]
    assert call("run", *SMALL, *flags).exit_code == 0
    assert Experiment.load(tmp_path / "experiment.toml").hyperparameters == {"beta": 0.5}


def test_figures_from_a_folder_and_bad_names_for_them(tmp_path):
    call("run", *SMALL, "--out", tmp_path)
    assert call("plot", tmp_path, "--figure", "profile").exit_code == 0
    for arguments, words in [
        (["plot", tmp_path, "--out", tmp_path / "noending"], "must end in one of"),
        (["plot", tmp_path, "--out", tmp_path / "a.xyz"], "a.xyz: a figure's file must end in"),
        (["activations", "relu", "--out", tmp_path], "must end in one of"),
        (["plot", tmp_path, "--figure", "a/b"], "unknown figure 'a/b'"),
        (["plot", tmp_path / "nothing"], "no such file"),
    ]:
        done = call(*arguments)
        assert done.exit_code == 2, arguments
        assert words in done.output, done.output


def test_an_interrupt_while_drawing_keeps_the_data(tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_folder, "save_figure", interrupted)
    done = call("run", *SMALL, "--out", tmp_path)
    assert done.exit_code == 130
    assert "Interrupted while drawing" in done.output
    assert sorted(os.listdir(tmp_path)) == ["experiment.toml", "trace.nc"]


def test_an_interrupt_before_the_first_step(tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Experiment, "load_data", interrupted)
    done = call("run", *SMALL, "--out", tmp_path)
    assert done.exit_code == 130
    assert "nothing was recorded" in done.output


def test_divergence_is_reported_not_raised(tmp_path):
    done = call("run", *SMALL, "--activation", "relu", "--learning-rate", 1e300, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert "The run diverged: the first values that are not finite" in " ".join(done.output.split())


def test_plot_and_activations(tmp_path):
    call("run", *SMALL, "--out", tmp_path)
    done = call("plot", tmp_path / "trace.nc", "--figure", "profile", "--out", tmp_path / "p.png")
    assert done.exit_code == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert call("activations", "tanh", "relu", "--out", tmp_path / "a.png").exit_code == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    wrong = call("plot", tmp_path / "trace.nc", "--figure", "heat")
    assert wrong.exit_code == 2
    assert "unknown figure 'heat'; did you mean 'heatmap'?" in wrong.output


def test_help_is_light():
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from gradiometer.cli import app\n"
        "done = CliRunner().invoke(app, ['--help'])\n"
        "assert done.exit_code == 0\n"
        "heavy = {'matplotlib', 'sklearn', 'xarray', 'scipy', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_dp_imports_numpy_alone():
    code = (
        "import sys, numpy\n"
        "before = set(sys.modules)\n"
        "import dp\n"
        "new = {m.partition('.')[0] for m in set(sys.modules) - before}\n"
        "outside = new - set(sys.stdlib_module_names) - {'dp', 'numpy'}\n"
        "assert not outside, outside\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_bars_are_logarithmic_and_mark_what_has_no_logarithm():
    assert log_bars([1e-4, 1e-2, 1.0], width=5) == ["█", "███", "█████"]
    assert log_bars([0.0, 1.0, float("inf"), None], width=5) == ["0", "█", "not finite", ""]
    assert log_bars([0.0, float("nan")]) == ["0", "not finite"]


def test_names_are_no_markup(capsys):
    """Layers and folders may be called anything; in tables it is shown as it is."""
    dataset = gradiometer.run(layers=2, width=2, steps=2).dataset
    names = ["[red]x", "[/]", ":smile:"]
    print_report(Trace(dataset.assign_coords(layer=names)))
    shown = capsys.readouterr().out
    for name in names:
        assert name in shown
