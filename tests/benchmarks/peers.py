"""How TRL is driven: its own trainers, collators and training steps, fed with the same token ids.

``DPOTrainer`` scores label positions only where ``trl.trainer.utils._use_triton(device)`` is true, every position elsewhere.
That name decides nothing else there: the kernels ask their own module's copy. So on a CPU its GPU path is this one answer
replaced by True: label positions are selected as on a GPU, and TRL's own torch version of its kernels multiplies the same
tiles. Nothing of TRL's arithmetic is replaced, and losses and gradients are compared before anything is timed.

One thing costs TRL more here than on a GPU: for its log it makes entropy, mean logit and top-1 of each position, in passes
over the logits that its GPU kernel makes while it reads them anyway. ``lean`` leaves them out, in TRL's favour.

A base model in bf16 is trained as TRL does it unless told otherwise: adapters in float32, forwards under autocast to bf16.
Without, peft would make float32 copies of each linear's input. Ours adds adapters in the layer's own precision, so in bf16 too.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import workload
from peft import LoraConfig

from pref_toolkit.data.tokens import Encoded
from pref_toolkit.losses import METHODS
from pref_toolkit.training.adapters import trainable
from pref_toolkit.training.models import tiny

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import datasets
    import trl.trainer.utils
    from trl import DPOConfig, DPOTrainer
    from trl.experimental.cpo import CPOConfig, CPOTrainer

datasets.disable_progress_bars()
SCRATCH = tempfile.mkdtemp(prefix="bench-trl-")  # its trainers want a directory to write to, and write nothing here
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)


class TRL:
    """One of TRL's trainers, without optimiser.

    Args:
        base: a causal language model, frozen; its parameters are shared.
        method: ``dpo``, or ``simpo`` as TRL's ``CPOTrainer`` has it (``loss_type="simpo", cpo_alpha=0``).
        max_length: most tokens in prompt + response.
        gpu_path: score label positions only, as ``DPOTrainer`` does on a GPU.
        lean: leave out what is only logged.
        stored: ``precompute_ref_log_probs``; :meth:`store` computes them.
        checkpointing: ``gradient_checkpointing``, which TRL switches on unless told otherwise.
    """

    def __init__(
        self,
        base: Any,
        method: str,
        *,
        max_length: int,
        gpu_path: bool = False,
        lean: bool = False,
        stored: bool = False,
        checkpointing: bool = False,
    ) -> None:
        self.gpu_path = gpu_path
        self.device = next(base.parameters()).device
        rows = datasets.Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
        common: dict[str, Any] = {
            "output_dir": SCRATCH,
            "max_length": max_length,
            "gradient_checkpointing": checkpointing,
            "gradient_checkpointing_kwargs": {"use_reentrant": False} if checkpointing else None,
            "use_cpu": self.device.type == "cpu",
            "bf16": base.dtype == torch.bfloat16,
            "report_to": "none",
            "disable_tqdm": True,
        }
        hyperparameters = METHODS[method].hyperparameters
        lora = LoraConfig(
            r=workload.RANK,
            lora_alpha=2 * workload.RANK,
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        given = {
            "model": workload.sharing_weights(base),
            "train_dataset": rows,
            "processing_class": tiny()[1],  # reads the one row above; the batches come in token ids
            "peft_config": lora,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if method == "simpo":
                beta, gamma = hyperparameters["beta"], hyperparameters["gamma"]
                common["remove_unused_columns"] = False
                arguments = CPOConfig(loss_type="simpo", cpo_alpha=0.0, beta=beta, simpo_gamma=gamma, **common)
                self.trainer: Any = CPOTrainer(args=arguments, **given)
            else:
                self.trainer = DPOTrainer(args=DPOConfig(beta=hyperparameters["beta"], **common), **given)
        # Set here and not above, where TRL would compute them for the row of the data set.
        self.trainer.precompute_ref_logps = stored
        # Three things that its train() does before the first step.
        self.trainer.accelerator.prepare_model(self.trainer.model)  # autocast, if it is on
        self.trainer.current_gradient_accumulation_steps = 1
        if checkpointing:
            inner = self.trainer.model.get_base_model()
            # transformers 5.17 has it by the other name only.
            name = "activation" if hasattr(inner, "activation_checkpointing_enable") else "gradient"
            getattr(inner, f"{name}_checkpointing_enable")({"use_reentrant": False})
        self.stored: dict[str, tuple[float, float]] | None = {} if stored else None
        self.simpo = method == "simpo"
        self.model = self.trainer.model
        workload.spread_adapters(self.model)
        if lean:
            self._leave_out_what_is_logged()

    def step(self, examples: list[Encoded]) -> float:
        """TRL's collator and training step: the mean loss; gradients are left in the adapters."""
        self.model.zero_grad()
        batch = self.trainer.data_collator([self._features(e) for e in examples])
        with self._path():
            return self.trainer.training_step(self.model, batch).item()

    def store(self, examples: list[Encoded]) -> None:
        """Compute the reference's log-probabilities of a batch by TRL's own function, once."""
        assert self.stored is not None
        batch = self.trainer.data_collator([self._features(e, stored=False) for e in examples])
        batch = {name: value.to(self.device) for name, value in batch.items()}
        with self._path():
            chosen, rejected = self.trainer.compute_ref_log_probs(self.model, batch)
        self.stored |= {e.where: (c, r) for e, c, r in zip(examples, chosen.tolist(), rejected.tolist())}

    def gradients(self) -> dict[str, torch.Tensor]:
        """By name of the adapter's weight, which is the same as ours."""
        return {name: value.grad for name, value in trainable(self.model).items() if value.grad is not None}

    @contextmanager
    def _path(self) -> Iterator[None]:
        """Inside, TRL scores label positions only if that was asked for; on a GPU it does so anyway."""
        original = trl.trainer.utils._use_triton
        if self.gpu_path:
            trl.trainer.utils._use_triton = lambda device: True
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            trl.trainer.utils._use_triton = original

    def _features(self, example: Encoded, stored: bool = True) -> dict[str, Any]:
        """What TRL's own preparation of a data set gives for these token ids."""
        if not self.simpo:
            chosen, rejected = example.responses
            row: dict[str, Any] = {"prompt_ids": example.prompt, "chosen_ids": chosen, "rejected_ids": rejected}
            if self.stored is not None and stored:
                row["ref_chosen_logps"], row["ref_rejected_logps"] = self.stored[example.where]
            return row
        row = {"prompt_input_ids": example.prompt, "prompt_attention_mask": [1] * len(example.prompt)}
        for name, response in zip(("chosen", "rejected"), example.responses):
            ids = example.prompt + response
            row[f"{name}_input_ids"], row[f"{name}_attention_mask"] = ids, [1] * len(ids)
            row[f"{name}_labels"] = [-100] * len(example.prompt) + response
        return row

    def _leave_out_what_is_logged(self) -> None:
        """TRL's fused head with log-probabilities as its only output, and zeros for the log."""
        base = self.model.get_base_model()
        del base.forward  # TRL's own wrapper, which lies over the class's method
        trl.trainer.utils.add_fused_lm_head(base, outputs=("log_probs",))
        fused = base.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            outputs = fused(*args, **kwargs)
            nothing = torch.zeros_like(outputs.log_probs)
            outputs.entropy = outputs.mean_logits = nothing
            outputs.is_top1 = nothing.bool()
            return outputs

        base.forward = forward
