"""Scripts as PyTorch's tutorials write them, run as they stand with `torch` and with `fastnn` under that name: the same losses."""


import numpy as np
import pytest

import fastnn
import fastnn.nn
import fastnn.nn.functional
import fastnn.optim

peer = pytest.importorskip("torch")

GPT = '''
class CausalSelfAttention(nn.Module):
    def __init__(self, width, heads, block):
        super().__init__()
        self.c_attn, self.c_proj, self.n_head = nn.Linear(width, 3 * width), nn.Linear(width, width), heads
        self.register_buffer("bias", torch.tril(torch.ones(block, block)).view(1, 1, block, block))

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(C, dim=2)
        k, q, v = (t.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for t in (k, q, v))
        att = (q @ k.transpose(-2, -1)) * (1.0 / k.size(-1) ** 0.5)
        att = F.softmax(att.masked_fill(self.bias[:, :, :T, :T] == 0, float("-inf")), dim=-1)
        y = (att @ v).transpose(1, 2).contiguous().view(B, T, C)
        return self.c_proj(y)

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.ln_1, self.attn, self.ln_2 = nn.LayerNorm(width), CausalSelfAttention(width, 4, 8), nn.LayerNorm(width)
        self.mlp = nn.ModuleDict(dict(c_fc=nn.Linear(width, 4 * width), c_proj=nn.Linear(4 * width, width), act=nn.GELU()))
        self.mlpf = lambda x: self.mlp.c_proj(self.mlp.act(self.mlp.c_fc(x)))

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlpf(self.ln_2(x))

class GPT(nn.Module):
    def __init__(self, words=17, width=32):
        super().__init__()
        self.transformer = nn.ModuleDict(dict(wte=nn.Embedding(words, width), wpe=nn.Embedding(8, width),
                                              h=nn.ModuleList([Block(width) for _ in range(2)]), ln_f=nn.LayerNorm(width)))
        self.lm_head = nn.Linear(width, words, bias=False)
        self.transformer.wte.weight = self.lm_head.weight
        self.apply(self._init_weights)

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            torch.nn.init.normal_(module.weight, mean=0.0, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            torch.nn.init.zeros_(module.bias)

    def forward(self, idx, targets):
        device = idx.device
        pos = torch.arange(0, idx.size()[1], dtype=torch.long, device=device).unsqueeze(0)
        x = self.transformer.wte(idx) + self.transformer.wpe(pos)
        for block in self.transformer.h:
            x = block(x)
        logits = self.lm_head(self.transformer.ln_f(x))
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1)

model = GPT().to("cpu")
start(model)
decay = [p for p in model.parameters() if p.dim() >= 2]
plain = [p for p in model.parameters() if p.dim() < 2]
optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}], lr=3e-3,
                              betas=(0.9, 0.95))
data = torch.from_numpy(rng.integers(0, 17, (12, 9))).to("cpu")
for batch in data.split(4):
    x, y = batch[:, :-1], batch[:, 1:].clone()
    y[0, 0] = -1
    optimizer.zero_grad(set_to_none=True)
    loss = model(x, y)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    losses.append(loss.item())
'''

VAE = '''
class VAE(nn.Module):
    def __init__(self):
        super(VAE, self).__init__()
        self.fc1, self.fc21, self.fc22 = nn.Linear(20, 16), nn.Linear(16, 4), nn.Linear(16, 4)
        self.fc3, self.fc4 = nn.Linear(4, 16), nn.Linear(16, 20)

    def reparameterize(self, mu, logvar):
        std = torch.exp(0.5 * logvar)
        eps = torch.randn_like(std)
        assert eps.shape == std.shape and not eps.requires_grad
        eps = torch.tensor(rng.standard_normal(tuple(std.shape)), dtype=torch.float)
        return mu + eps * std

    def forward(self, x):
        h = F.relu(self.fc1(x.view(-1, 20)))
        mu, logvar = self.fc21(h), self.fc22(h)
        return torch.sigmoid(self.fc4(F.relu(self.fc3(self.reparameterize(mu, logvar))))), mu, logvar

def loss_function(recon_x, x, mu, logvar):
    BCE = F.binary_cross_entropy(recon_x, x.view(-1, 20), reduction="sum")
    return BCE + -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())

device = "cpu"
model = VAE().to(device)
start(model)
optimizer = optim.Adam(model.parameters(), lr=1e-2)
scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
model.train()
for epoch in range(3):
    data = torch.tensor(rng.random((8, 4, 5)), dtype=torch.float32, device=device)
    optimizer.zero_grad()
    recon_batch, mu, logvar = model(data)
    loss = loss_function(recon_batch, data, mu, logvar)
    loss.backward()
    losses.append(loss.item())
    optimizer.step()
    scheduler.step()
model.eval()
with torch.no_grad():
    losses.append(loss_function(*(model(data)[:1]), data, mu, logvar).item())
'''

DQN = '''
policy_net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
start(policy_net)
target_net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
target_net.load_state_dict(policy_net.state_dict())
optimizer = optim.AdamW(policy_net.parameters(), lr=1e-2, amsgrad=True)
device = "cpu"
for step in range(3):
    state_batch = torch.tensor(rng.standard_normal((16, 4)), dtype=torch.float32, device=device)
    action_batch = torch.tensor(rng.integers(0, 2, (16, 1)), device=device, dtype=torch.long)
    reward_batch = torch.tensor(rng.random(16), dtype=torch.float32)
    non_final_mask = torch.tensor([k % 3 != 0 for k in range(16)], device=device, dtype=torch.bool)
    state_action_values = policy_net(state_batch).gather(1, action_batch)
    next_state_values = torch.zeros(16, device=device)
    with torch.no_grad():
        next_state_values[non_final_mask] = target_net(state_batch[non_final_mask]).max(1).values
    expected = (next_state_values * 0.99) + reward_batch
    loss = nn.SmoothL1Loss()(state_action_values, expected.unsqueeze(1))
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_value_(policy_net.parameters(), 100)
    optimizer.step()
    target, policy = target_net.state_dict(), policy_net.state_dict()
    for key in policy:
        target[key] = policy[key] * 0.5 + target[key] * 0.5
    target_net.load_state_dict(target)
    losses.append(loss.item())
with torch.no_grad():
    action = policy_net(state_batch).max(1).indices.view(16, 1)
losses.extend(float(a) for a in action)
'''

BY_HAND = '''
w = torch.tensor(rng.standard_normal((3, 1)), dtype=torch.float, requires_grad=True)
b = torch.zeros(1, requires_grad=True)
x = torch.tensor(rng.standard_normal((10, 3)), dtype=torch.float)
y = x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.3
for t in range(5):
    loss = (x @ w + b - y).pow(2).mean()
    losses.append(loss.item())
    loss.backward()
    if t % 2:
        with torch.no_grad():
            w -= 0.1 * w.grad
            b -= 0.1 * b.grad
            w.grad = None
            b.grad.zero_()
    else:
        for p in (w, b):
            p.data -= 0.1 * p.grad.data
            p.grad.zero_()
@torch.no_grad
def evaluate():
    return (x @ w + b - y).abs().max().item()
losses.append(evaluate())
assert torch.is_grad_enabled()
with torch.set_grad_enabled(False):
    assert not (w * 2).requires_grad
with torch.inference_mode():
    assert not (w * 2).requires_grad
'''


FROM_SCRATCH = '''
W = torch.normal(0, 0.01, size=(6, 5), requires_grad=True)
W.data = torch.Tensor(rng.standard_normal((6, 5)))
b = torch.zeros(5, requires_grad=True)
X, y = torch.FloatTensor(rng.standard_normal((32, 2, 3))), torch.LongTensor(rng.integers(0, 5, 32))
for epoch in range(4):
    e = torch.exp(torch.matmul(X.reshape((-1, 6)), W) + b)
    y_hat = e / e.sum(axis=1, keepdims=True)
    loss = -torch.log(y_hat[range(len(y_hat)), y])
    loss.mean().backward()
    with torch.no_grad():
        for p in (W, b):
            p -= 0.5 * p.grad
            p.grad.zero_()
    hits = y_hat.argmax(axis=1).type(y.dtype) == y
    losses += [loss.mean().item(), float(hits.type(y.dtype).sum())]
counts = torch.zeros((5, 5), dtype=torch.int32)
for a, c in zip(y, y[1:]):
    counts[a, c] += 1
share = (counts + 1).float()
share /= share.sum(1, keepdims=True)
losses += [share.log().sum().item(), counts.sum().item(), (counts @ counts).max().item(), (counts ** 2).sum().item()]
'''

RECURRENT = '''
class Seq2Seq(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.rnn, self.dense = nn.Embedding(9, 6), nn.GRU(6, 8, 2), nn.Linear(8, 9)
        for name in self.rnn._flat_weights_names:
            if "weight" in name:
                nn.init.xavier_uniform_(self.rnn._parameters[name])

    def forward(self, x, state):
        output, state = self.rnn(self.embedding(x).permute(1, 0, 2), state)
        return self.dense(output).permute(1, 0, 2), state

model, state = Seq2Seq(), torch.zeros(2, 3, 8)
start(model)
optimizer = optim.Adam(model.parameters(), lr=0.01)
for step in range(4):
    x, y = torch.tensor(rng.integers(0, 9, (3, 5))), torch.tensor(rng.integers(0, 9, (3, 5)))
    state.detach_()
    out, state = model(x, state)
    weights = torch.ones_like(y)
    keep = torch.arange(5, dtype=torch.float32)[None, :] < torch.tensor([2, 5, 3])[:, None]
    weights[~keep] = 0
    loss = (F.cross_entropy(out.permute(0, 2, 1), y, reduction="none") * weights).mean(dim=1).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
'''

SINES = '''
class Sequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.linear = nn.LSTMCell(1, 6), nn.Linear(6, 1)

    def forward(self, x):
        h, c = torch.zeros(x.size(0), 6, dtype=torch.double), torch.zeros(x.size(0), 6, dtype=torch.double)
        outputs = []
        for step in x.split(1, dim=1):
            h, c = self.lstm(step, (h, c))
            outputs += [self.linear(h)]
        return torch.cat(outputs, dim=1)

model = Sequence()
model.double()
start(model)
data = torch.from_numpy(np.sin(np.arange(12) / 2 + rng.random((4, 1))))
optimizer = optim.LBFGS(model.parameters(), lr=0.8, max_iter=4)
def closure():
    optimizer.zero_grad()
    loss = F.mse_loss(model(data[:, :-1]), data[:, 1:])
    losses.append(loss.item())
    loss.backward()
    return loss
for step in range(3):
    optimizer.step(closure)
'''

SEGMENTATION = '''
class MyConv(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.Tensor(outputs, inputs, 3, 3)), nn.Parameter(torch.Tensor(outputs))
        nn.init.kaiming_uniform_(self.weight, a=5 ** 0.5)
        nn.init.zeros_(self.bias)

    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias, padding=1)

model = nn.Sequential(MyConv(3, 4), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2),
                      nn.ConvTranspose2d(4, 4, kernel_size=2, stride=2), nn.Conv2d(4, 2, 1))
start(model)
model = model.to(memory_format=torch.channels_last)
average = [v.clone() for v in model.state_dict().values()]
optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for step in range(4):
    image = torch.tensor(rng.random((2, 3, 8, 8)), dtype=torch.float32).to("cpu", non_blocking=True, memory_format=torch.channels_last)
    mask = torch.as_tensor(rng.integers(0, 2, (2, 8, 8))).to(device="cpu", dtype=torch.long)
    out = model(image)
    share, wanted = F.softmax(out, dim=1), F.one_hot(mask, 2).permute(0, 3, 1, 2).float()
    loss = F.cross_entropy(out, mask) + 1 - (2 * (share * wanted).sum((-1, -2)) / (share + wanted).sum((-1, -2))).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    for kept, value in zip(average, model.state_dict().values()):
        if value.dtype.is_floating_point:
            kept.mul_(0.9).add_(value, alpha=0.1)
        else:
            kept.copy_(value)
    losses.append(loss.item())
losses += [float(kept.double().sum()) for kept in average]
'''

DIFFUSION = '''
T = 20
betas = torch.linspace(1e-4, 0.02, T)
products = torch.cumprod(1. - betas, axis=0)
before = F.pad(products[:-1], (1, 0), value=1.0)
losses += (betas * (1. - before) / (1. - products)).tolist()
model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.SiLU(), nn.Conv2d(8, 1, 3, padding=1))
start(model)
optimizer = optim.Adam(model.parameters(), lr=1e-2)
for step in range(4):
    x, noise = (torch.tensor(rng.standard_normal((4, 1, 6, 6))).float() for _ in range(2))
    t = torch.tensor(rng.integers(0, T, (4,))).long()
    share = products.gather(-1, t.cpu()).reshape(t.shape[0], *((1,) * (len(x.shape) - 1))).to(t.device)
    loss = F.smooth_l1_loss(noise, model(share.sqrt() * x + (1 - share).sqrt() * noise))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
i, j = torch.triu_indices(4, 4, 1)
losses += torch.cdist(x.flatten(1), noise.flatten(1))[i, j].tolist()
'''


def play(script, torch, weights):
    """The script's losses; a model starts from `weights`, or fills that list."""

    def start(model):
        if weights:
            model.load_state_dict(weights[0], strict=False)  # a tied weight may stand there under one name; losses would tell
        else:
            weights.append({name: value.clone().numpy() for name, value in model.state_dict().items()})

    names = {"torch": torch, "np": np, "nn": torch.nn, "F": torch.nn.functional, "optim": torch.optim, "start": start,
             "rng": np.random.default_rng(4), "losses": []}
    exec(compile(script, "script", "exec"), names)
    return names["losses"]


SCRIPTS = {"gpt": GPT, "vae": VAE, "dqn": DQN, "by hand": BY_HAND, "from scratch": FROM_SCRATCH, "recurrent": RECURRENT, "sines": SINES,
           "segmentation": SEGMENTATION, "diffusion": DIFFUSION}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_script_gives_the_same_losses(script):
    weights = []
    ours = play(script, fastnn, weights)
    state = [{name: peer.from_numpy(value) for name, value in weights[0].items()}] if weights else []
    theirs = play(script, peer, state)
    assert len(ours) == len(theirs) >= 3 and len(set(ours)) > 1
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-6)
