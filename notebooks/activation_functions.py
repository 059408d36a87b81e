# ---
# jupyter:
#   jupytext:
#     formats: py:percent,ipynb
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Activation functions and the vanishing gradient
#
# In a deep net the gradient tells each weight in which direction to move. It is computed at the
# loss and passed backwards, layer by layer. In this lesson you will follow it: you write out the
# chain rule for a net so small that the formula fits on one line, see what three activation
# functions do to the gradient, and then train nets and measure whether it reaches the first
# layer.
#
# You need the chain rule, matrix products and a little NumPy. The nets are built with `dp`, a
# library that computes derivatives and is small enough to read in an evening.
#
# 1. [The chain rule through three neurons](#1.-The-chain-rule-through-three-neurons)
# 2. [Three activation functions](#2.-Three-activation-functions)
# 3. [The data](#3.-The-data)
# 4. [A first net](#4.-A-first-net)
# 5. [Exercise: record the gradient](#5.-Exercise:-record-the-gradient)
# 6. [Exercise: a net that obeys its parameters](#6.-Exercise:-a-net-that-obeys-its-parameters)
# 7. [Ten sigmoid layers](#7.-Ten-sigmoid-layers)
# 8. [What else happens in deep nets](#8.-What-else-happens-in-deep-nets)

# %%
import matplotlib.pyplot as plt
import numpy as np

import dp
import gradiometer
from dp import Model, Node
from gradiometer.data import load

np.random.seed(0)

# %% [markdown]
# ## 1. The chain rule through three neurons
#
# Take three layers of one neuron each. Layer $i$ receives $x_{i-1}$, computes its
# *pre-activation* $h_i = w_i x_{i-1} + b_i$, and passes on $x_i = \varphi(h_i)$. The last output
# enters a loss $L(x_3)$.
#
# How does $L$ change with the *first* weight? The path from $w_1$ to $L$ runs through every later
# layer, and each layer contributes a factor:
#
# $$
# \frac{\partial L}{\partial w_1}
#   = \underbrace{\frac{\partial L}{\partial x_3}}_{\text{loss}}
#     \cdot \underbrace{\varphi'(h_3)\, w_3}_{\text{layer 3}}
#     \cdot \underbrace{\varphi'(h_2)\, w_2}_{\text{layer 2}}
#     \cdot \underbrace{\varphi'(h_1)}_{\text{layer 1}}
#     \cdot \underbrace{x_0}_{\text{input}}
# $$
#
# This is often shortened to "a product of derivatives of the activation function". The short form
# omits three things, and each will matter below:
#
# * the **weights** $w_2$ and $w_3$: a layer's factor is $\varphi'(h)\,w$, so a large weight can
#   compensate for a small slope, and a small weight can cancel a large slope;
# * the **input** $x_0$, and generally $x_{i-1}$ for $w_i$: the gradient of a weight is the
#   *delta* of its layer, $\delta_i = \partial L / \partial h_i$, times the layer's input:
#   $\partial L/\partial w_i = \delta_i\,x_{i-1}$. (The bias has no such factor: $\partial
#   L/\partial b_i = \delta_i$.) The delta is what backpropagation passes from layer to layer;
# * the **point** $h_i$ at which each slope is taken: the slope is not a constant of the function.
#   It depends on the weights, the biases and the sample.
#
# Let us check the formula, with numbers, against what `dp` computes. A `Node` is a matrix that
# remembers how it was computed; `dp.gradients` goes through this history backwards.

# %%
w1, w2, w3 = Node(0.8, "w1"), Node(-1.2, "w2"), Node(0.5, "w3")
b1, b2, b3 = Node(-0.3, "b1"), Node(0.9, "b2"), Node(0.2, "b3")
x0, y = Node(2.0), Node(1.0)

h1 = w1 * x0 + b1
h2 = w2 * h1.sigmoid() + b2
h3 = w3 * h2.sigmoid() + b3
x3 = h3.sigmoid()
L = (x3 - y).square()

grad_w1, grad_b1 = dp.gradients(L, [w1, b1])


def slope(h):
    s = 1 / (1 + np.exp(-h.value))
    return s * (1 - s)


from_loss = 2 * (x3 - y).value
delta1 = from_loss * slope(h3) * w3.value * slope(h2) * w2.value * slope(h1)

print("dL/dw1 by dp  ", grad_w1)
print("       by hand", delta1 * x0.value)
print("dL/db1 by dp  ", grad_b1)
print("       by hand", delta1)
assert np.allclose(grad_w1, delta1 * x0.value)
assert np.allclose(grad_b1, delta1)

# %% [markdown]
# The same holds for layers of many neurons: $w$ becomes a matrix $W_i$, the slopes form a diagonal
# matrix, and the delta is a vector,
#
# $$ \delta_{i} = \left(\delta_{i+1} W_{i+1}^{\top}\right) \odot \varphi'(h_i), \qquad
#    \frac{\partial L}{\partial W_i} = x_{i-1}^{\top}\, \delta_i . $$
#
# Depth matters because the step from $\delta_{i+1}$ to $\delta_i$ is repeated once per layer. If
# each step reduces the delta to a fifth, ten steps leave one ten-millionth. This is the
# **vanishing gradient**. If each step doubles it, ten steps multiply it by a thousand: an
# **exploding** gradient.

# %% [markdown]
# ## 2. Three activation functions
#
# The solid line is the function, the dashed one its derivative.

# %%
gradiometer.activations(["sigmoid", "tanh", "relu"])

# %% [markdown]
# **Sigmoid**, $\sigma(h) = \dfrac{1}{1+e^{-h}}$, with $\sigma' = \sigma\,(1-\sigma)$. Its
# steepest point is $h = 0$, and even there the slope is only $1/4$. Every sigmoid layer therefore
# multiplies the delta by at most $|w|/4$: with weights near 1, at most $4^{-10}$, a millionth, is
# left after ten layers. Far from 0 the sigmoid is *saturated*: the slope is almost zero. Its
# output is never negative. So *one* sample pushes all weights of a neuron in the next layer in
# the same direction: each of their gradients is the neuron's delta, times an input that is not
# negative. Over a batch this is different. There, samples whose deltas have opposite signs are
# summed, each with its own inputs, and one weight may rise while another falls.
#
# **Tanh**, $\tanh(h) = 2\sigma(2h) - 1$, with $\tanh' = 1 - \tanh^2$. The slope reaches $1$ at
# $h = 0$ and the output is centred on 0. It saturates like the sigmoid, but a layer that works
# near 0 hardly changes the delta.
#
# **ReLU**, $\max(0, h)$, with slope 1 for positive $h$ and 0 for negative. At $h = 0$ it has a
# kink and no derivative; by convention the slope is taken as 0 there, in `dp` too. Where a unit
# is on, the slope does not shrink the delta, however many layers there are. The disadvantage:
# where a unit is off, its delta is zero, and a unit that is off for *every* sample gets no
# gradient that could turn it on again. It is *dead*. And since the output is not bounded, deltas
# and activations may also grow.
#
# The largest slope gives a bound, not a prediction. What a layer really does to the delta depends
# on its weights and on the values of $h$; you have to measure it. `dp` knows the largest slopes:

# %%
for name in ["sigmoid", "tanh", "relu"]:
    function = dp.activations.get(name)
    print(f"{name:8} slope at most {function.max_slope}, values in {function.range}")

# %% [markdown]
# ## 3. The data
#
# The first 100 samples of Iris: 50 flowers of the species *setosa* and 50 *versicolor*, four
# measurements of each, in centimetres. Before training, each feature is *standardised*: its mean is
# subtracted, and it is divided by its standard deviation. Inputs of similar size keep the first
# pre-activations in the region where the functions above have a slope.

# %%
iris = load("iris2")
X, Y = iris.x, iris.y
print("X", X.shape, " Y", Y.shape)
print("means ", X.mean(axis=0).round(12))
print("spread", X.std(axis=0))

# %% [markdown]
# Four features cannot be drawn, but most of their variation lies in one plane, spanned by the two
# *principal components*: the directions along which the data vary most. They are the first right
# singular vectors of the (centred) data matrix.

# %%
_, singular_values, directions = np.linalg.svd(X, full_matrices=False)
explained = singular_values**2 / (singular_values**2).sum()
plane = X @ directions[:2].T

figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
for label, marker in [(0, "o"), (1, "^")]:
    chosen = Y[:, 0] == label
    axes.scatter(*plane[chosen].T, marker=marker, label=iris.class_names[label])
axes.set(
    xlabel=f"first component ({explained[0]:.0%} of the variance)",
    ylabel=f"second component ({explained[1]:.0%})",
    title="Iris, two species",
)
axes.legend()
plt.show()

# %% [markdown]
# A straight line separates the two species. So if a net fails on these data, the data are not the
# reason.

# %% [markdown]
# ## 4. A first net
#
# A model derives from `dp.Model`. `Linear_Layer(fan_in, fan_out, name)` draws the initial weights
# and returns the affine map $x \mapsto xW + b$; you define `forward` and `loss`. Here we use one
# hidden layer of 10 tanh neurons, one sigmoid output $p$, and the cross-entropy $-\sum \big(y
# \log p + (1-y)\log(1-p)\big)$ summed over the batch.


# %%
class Net(Model):
    def __init__(self):
        super().__init__()
        self.h0 = self.Linear_Layer(4, 10, "h0")
        self.h1 = self.Linear_Layer(10, 1, "h1")

    def forward(self, x):
        if not isinstance(x, Node):
            x = Node(x)
        return self.h1(self.h0(x).tanh()).sigmoid()

    def loss(self, x, y):
        if not isinstance(y, Node):
            y = Node(y)
        p = self.forward(x)
        return -(y * p.log() + (1 - y) * (1 - p).log()).sum()


net = Net()
grad, loss = net.get_grad(X, Y)
print(f"loss before training: {loss.value[0, 0]:.2f}")
for name, value in grad.items():
    print(f"{name:10} shape {value.shape}, mean |dL/dw| {np.abs(value).mean():.3f}")

# %% [markdown]
# An optimiser repeats three things: it draws a batch, gets the gradients from the model, and
# changes every parameter a little against its gradient. `dp.Optimizer` contains this loop.
# `_update` defines the change, and for plain *stochastic gradient descent* (SGD) it takes one
# line:


# %%
class SGD(dp.Optimizer):
    def _set_param(self):
        self.alpha = self.hyperparam.get("alpha", 0.001)

    def _update(self, param, grad, g, i):
        param[g] -= self.alpha * grad[g]


def accuracy(net):
    return np.mean((net.forward(X).value > 0.5) == Y)


print(f"accuracy before {accuracy(net):.0%}")
optimiser = SGD(net, X, Y, {"alpha": 0.001}, batch_size=128)
optimiser.train(steps=100, print_each=10)
print(f"accuracy after {accuracy(net):.0%}")

# %% [markdown]
# After a hundred steps, the net classifies every flower correctly.

# %% [markdown]
# ## 5. Exercise: record the gradient
#
# To follow the gradient we must record it. Extend the optimiser: in every step (the course
# calls a step an *epoch*), store for each layer the mean of $|\partial L/\partial W|$, taken before
# the update, in a matrix `grad_w` of shape `(n_layers + 1, n_epochs)`: a row for each of the
# `n_layers` hidden layers, from the input on, and a last one for the output layer.
#
# Hints: override `_train`. `self.random_batch()` draws a batch, `self.model.get_grad(x, y)` returns
# the gradients, in a dictionary whose keys end in `_weight` or `_bias`, and the loss.
# `self.model.get_param()` returns the parameters under the same keys, and
# `self._update(param, grad, key, i)` changes one of them.


# %% tags=["exercise"]
class MySGD(SGD):
    pass  # write _train in place of this line:

    # def _train(self, steps=1000, num_grad_stores=0, print_each=100):
    #     self.grad_w = ...


# %% [markdown]
# This cell compares your matrix with what `gradiometer` records of the same training. As long as
# there is nothing to compare it says so, and you can go on with the lesson.

# %% tags=["check"]
np.random.seed(0)
mine = MySGD(Net(), X, Y)
mine.train(steps=20, print_each=20)

if not hasattr(mine, "grad_w"):
    print("No grad_w yet: write MySGD in the cell above, run it, and run this cell again.")
else:
    np.random.seed(0)
    net = Net()
    optimiser = SGD(net, X, Y)
    with gradiometer.record(net, optimiser) as recorder:
        optimiser.train(steps=20, print_each=None)
    expected = recorder.trace.grad_w
    shape = np.shape(mine.grad_w)
    assert shape == expected.shape, f"grad_w has shape {shape} instead of {expected.shape}"
    for row, name in enumerate(["h0", "h1"]):
        for step in range(20):
            found, wanted = mine.grad_w[row][step], expected[row, step]
            assert np.isclose(found, wanted), (
                f"layer {name}, step {step + 1}: {found} instead of {wanted}"
            )
    print("Right: your grad_w is what gradiometer records.")

# %% [markdown]
# ### Solution


# %% tags=["solution"]
class RecordingSGD(SGD):
    def _train(self, steps=1000, num_grad_stores=0, print_each=100):
        param = self.model.get_param()
        weights = [name for name in param if name.endswith("_weight")]
        self.grad_w = np.zeros((len(weights), steps))
        for i in range(1, steps + 1):
            x, y = self.random_batch()
            grad, loss = self.model.get_grad(x, y)
            for row, name in enumerate(weights):
                self.grad_w[row, i - 1] = np.abs(grad[name]).mean()
            for g in grad:
                self._update(param, grad, g, i)
            if print_each and i % print_each == 0:
                print(i, "\t", loss.value[0, 0])
        return loss.value


net = Net()
optimiser = RecordingSGD(net, X, Y)
optimiser.train(steps=100, print_each=None)
print(optimiser.grad_w.shape)

figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.plot(optimiser.grad_w.T, label=["h0", "h1"])
axes.set(xlabel="step", ylabel="mean |dL/dW|", title="One hidden layer of tanh")
axes.legend()
plt.show()

# %% [markdown]
# Both gradients are large at first and shrink as the loss does. In a net that *learns*, a small
# gradient at the end is normal. We are looking for a gradient that is small from the beginning.
#
# `gradiometer` records the same and more, without extra code in your optimiser. `record` takes any
# `dp` model and optimiser:

# %%
np.random.seed(1)
mine = RecordingSGD(Net(), X, Y)
mine.train(50, print_each=None)

np.random.seed(1)
net = Net()
optimiser = SGD(net, X, Y)
with gradiometer.record(net, optimiser) as recorder:
    optimiser.train(50, print_each=None)
trace = recorder.trace

assert np.array_equal(mine.grad_w, trace.grad_w)
trace

# %% [markdown]
# ## 6. Exercise: a net that obeys its parameters
#
# Write `Net(n_features, n_hidden_neurons, n_layers, act_func)`: a net with `n_layers` hidden layers
# of `n_hidden_neurons` each, with the activation function named `act_func` after every one of them,
# a single sigmoid neuron at the end, and the loss of section 4. Call it `MyNet` here.
#
# Hints: layers may be kept in a list. Each needs a name of its own. `getattr(h, "tanh")()` is the
# same as `h.tanh()`.


# %% tags=["exercise"]
class MyNet(Model):
    def __init__(self, n_features, n_hidden_neurons, n_layers, act_func):
        super().__init__()
        # make the layers here

    # def forward(self, x):
    #     ...

    # def loss(self, x, y):
    #     ...


# %% [markdown]
# This cell builds nets of several sizes and computes their output by hand, from the weights and
# biases that the layers hold.


# %% tags=["check"]
def check_net(n_hidden_neurons, n_layers, act_func):
    what = f"MyNet(4, {n_hidden_neurons}, {n_layers}, {act_func!r})"
    net = MyNet(4, n_hidden_neurons, n_layers, act_func)
    with dp.watch_layers() as watch:
        p = net.forward(X).value
    layers = [call.layer for call in watch.calls]
    sizes = [(layer.fan_in, layer.fan_out) for layer in layers]
    n = n_hidden_neurons
    wanted = [(4, n)] + [(n, n)] * (n_layers - 1) + [(n, 1)]
    assert sizes == wanted, f"{what} has layers of sizes {sizes} instead of {wanted}"
    x = X
    for layer in layers[:-1]:
        x = dp.activations.get(act_func)(x @ layer.weight.value + layer.bias.value)
    h = x @ layers[-1].weight.value + layers[-1].bias.value
    assert np.allclose(p, 1 / (1 + np.exp(-h))), f"{what}: forward gives other numbers"
    grad, loss = net.get_grad(Node(X), Node(Y))
    by_hand = -(Y * np.log(p) + (1 - Y) * np.log(1 - p)).sum()
    assert np.allclose(loss.value, by_hand), f"{what}: the loss is {loss.value}, not {by_hand}"
    assert len(grad) == 2 * len(layers), f"{what}: gradients of {sorted(grad)} only"


if "forward" not in vars(MyNet) or "loss" not in vars(MyNet):
    print("No net yet: write MyNet in the cell above, run it, and run this cell again.")
else:
    np.random.seed(0)
    for sizes in [(10, 1), (3, 2), (5, 4)]:
        for name in ["sigmoid", "tanh", "relu"]:
            check_net(*sizes, name)
    print("Right: the net obeys its parameters.")

# %% [markdown]
# ### Solution


# %% tags=["solution"]
class Net(Model):
    def __init__(self, n_features, n_hidden_neurons, n_layers, act_func):
        super().__init__()
        sizes = [n_features] + [n_hidden_neurons] * n_layers
        self.hidden = [
            self.Linear_Layer(sizes[i], sizes[i + 1], f"h{i + 1}") for i in range(n_layers)
        ]
        self.out = self.Linear_Layer(n_hidden_neurons, 1, "out")
        self.act_func = act_func

    def forward(self, x):
        if not isinstance(x, Node):
            x = Node(x)
        for layer in self.hidden:
            x = getattr(layer(x), self.act_func)()
        return self.out(x).sigmoid()

    def loss(self, x, y):
        if not isinstance(y, Node):
            y = Node(y)
        p = self.forward(x)
        return -(y * p.log() + (1 - y) * (1 - p).log()).sum()


def train(act_func, n_layers, steps=100):
    np.random.seed(0)
    net = Net(4, 10, n_layers, act_func)
    optimiser = RecordingSGD(net, X, Y, {"alpha": 0.001})
    optimiser.train(steps, print_each=None)
    return accuracy(net), optimiser.grad_w


print("accuracy after 100 steps")
print("layers  " + "".join(f"{name:>9}" for name in ["sigmoid", "tanh", "relu"]))
for n_layers in [1, 2, 3, 5, 10]:
    reached = [train(name, n_layers)[0] for name in ["sigmoid", "tanh", "relu"]]
    print(f"{n_layers:6}  " + "".join(f"{a:9.0%}" for a in reached))

# %% [markdown]
# The deep sigmoid nets stay at 50 %: they give the same answer for every flower. Tanh and ReLU nets
# learn at every depth. (`dp.Net` takes the same parameters, and a few more.)

# %% [markdown]
# ## 7. Ten sigmoid layers
#
# Where does the gradient vanish? Here is `grad_w` of the deepest net, with a panel for each
# layer. Note that each panel has its own scale.

# %%
reached, grad_w = train("sigmoid", 10)

figure, panels = plt.subplots(4, 3, figsize=(10, 9), sharex=True, layout="constrained")
names = [f"h{i}" for i in range(1, 11)] + ["out"]
for axes, name, row in zip(panels.flat, names, grad_w, strict=False):
    axes.plot(row)
    axes.set_title(name)
    axes.ticklabel_format(axis="y", scilimits=(-2, 2))
panels.flat[-1].axis("off")
figure.supxlabel("step")
figure.supylabel("mean |dL/dW|")
plt.show()

# %%
first_step = grad_w[:, 0]
figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
for name in ["sigmoid", "tanh", "relu"]:
    axes.semilogy(names, train(name, 10, steps=1)[1][:, 0], marker="o", label=name)
axes.set(xlabel="layer", ylabel="mean |dL/dW|", title="At the first step: ten hidden layers")
axes.legend()
print(
    f"from the output to h1 the sigmoid's gradient falls by a factor of "
    f"{first_step[-1] / first_step[0]:,.0f}"
)
plt.show()

# %% [markdown]
# On a log scale the sigmoid's gradients fall from the output in equal steps: each layer
# multiplies the delta by about the same small factor, as section 1 explained. The output layer
# gets a large gradient, and still the net does not learn: after ten sigmoids the last hidden
# layer gives almost the same numbers for every flower, so the output layer cannot tell the
# species apart. The layers that could change this get a gradient so small that a hundred steps
# hardly change them.
#
# But look at the first layers: there the curve levels off. Does the delta stop shrinking? Section
# 1 gives the answer: $\partial L/\partial W_i = x_{i-1}^{\top}\delta_i$ has two factors. Measure
# the delta alone, and on twenty nets instead of one, since one net proves nothing:

# %%
trace = gradiometer.run(layers=10, width=10, activation="sigmoid", steps=100, members=20)
print("median accuracy", np.median(trace["accuracy"][-1]))
print(trace.sentence())
trace.plot.profile()

# %% [markdown]
# The delta keeps falling, all the way to the first layer. The gradient of the weights stays
# larger because of the other factor. The deltas of the two species have opposite signs. Deep in
# the net, where $x_{i-1}$ is the same for both, their contributions cancel in the sum over the
# batch; near the input, where it differs, they do not cancel. So a weight's gradient may look
# healthy although the delta has vanished. If you look for vanishing gradients, look at the deltas
# too.
#
# All layers and all steps in one picture:

# %%
trace.plot.heatmap()

# %% [markdown]
# ## 8. What else happens in deep nets
#
# Here are four more experiments, each a line or two long.
#
# **Do ReLUs die?** Count the units that are zero for every flower, before and after a training with
# learning rates that are much too large.

# %%
for rate in [0.001, 0.01, 0.1]:
    relu = gradiometer.run(activation="relu", learning_rate=rate, members=20)
    dead = relu["dead_fraction"].sel(layer="h10").median("member").values
    reached = float(relu["accuracy"][-1].median())
    print(
        f"learning rate {rate:<6} dead in h10: {dead[0]:4.0%} at first, {dead[-1]:4.0%} at the "
        f"end; median accuracy {reached:.0%}"
    )

# %% [markdown]
# **Do they overflow?** A ReLU is not bounded. Give the net inputs that are a thousand times as
# large, and 32-bit numbers, as most frameworks use: within a few steps the activations, and with
# them the gradients, become too large to be represented. Recording goes on, and says where it
# began.

# %%
wild = {"scaling": 1000.0, "learning_rate": 0.01, "steps": 20, "dtype": "float32"}
relu = gradiometer.run(activation="relu", **wild)
print("loss in the first steps:", relu["loss"].values[:4])
print(relu.sentence())

# %% [markdown]
# **Does clipping help?** A ceiling bounds the activations, but adds a second region without a
# slope: nothing overflows, but most units are now at one end or the other, and the delta that
# arrives at the first layer is multiplied by inputs that are still huge.

# %%
clipped = gradiometer.run(activation="relu", clip=6.0, **wild)
print("loss in the first steps:", clipped["loss"].values[:4])
no_slope = clipped["saturated_fraction"].sel(layer="h1").values
print(
    f"without slope in h1: {no_slope[0]:.0%} at first, {no_slope[-1]:.0%} at the end; "
    f"accuracy {float(clipped['accuracy'][-1]):.0%}"
)

# %% [markdown]
# **Must inputs be standardised?** Train one layer of tanh on standardised inputs, on raw
# centimetres, on millimetres, and on tenths of millimetres:

# %%
for scaling in ["standardise", "raw", 10.0, 100.0]:
    nets = gradiometer.run(layers=1, activation="tanh", scaling=scaling, members=20)
    saturated = float(nets["saturated_fraction"].sel(layer="h1")[0].mean())
    learned = int((nets["accuracy"][-1] == 1.0).sum())
    print(f"{scaling!s:12} saturated at first: {saturated:4.0%}, learned: {learned} nets of 20")

# %% [markdown]
# ---
# This lesson follows the plan of "Activation Functions (Differentiable Programming)" by Klaus
# Strohmenger, deep.TEACHING, 2019 (text CC BY-SA 4.0, code MIT). Our text and code are our own.
