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


def play(script, torch, weights):
    """The script's losses; a model starts from `weights`, or fills that list."""

    def start(model):
        if weights:
            model.load_state_dict(weights[0], strict=False)  # a tied weight may stand there under one name; losses would tell
        else:
            weights.append({name: value.clone().numpy() for name, value in model.state_dict().items()})

    names = {"torch": torch, "nn": torch.nn, "F": torch.nn.functional, "optim": torch.optim, "start": start,
             "rng": np.random.default_rng(4), "losses": []}
    exec(compile(script, "script", "exec"), names)
    return names["losses"]


@pytest.mark.parametrize("script", [GPT, VAE, DQN, BY_HAND], ids=["gpt", "vae", "dqn", "by hand"])
def test_a_script_gives_the_same_losses(script):
    weights = []
    ours = play(script, fastnn, weights)
    state = [{name: peer.from_numpy(value) for name, value in weights[0].items()}] if weights else []
    theirs = play(script, peer, state)
    assert len(ours) == len(theirs) >= 3 and len(set(ours)) > 1
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-6)
