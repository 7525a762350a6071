"""What the simulator's models answer, as a script for `SmallInstallation`."""

from collections.abc import Callable, Iterable, Mapping

from evals.sim import answers
from evals.sim.profiles import Profile
from evals.sim.simulated_model import (
    ItemBank,
    SimulatedModel,
    bank_item,
    load_suites,
)
from evals.suites.items import Item
from harness.evals.settings import SuiteSettings
from harness.providers.target import Target


def simulated_answers(
    suites: Iterable[SuiteSettings], models: Mapping[str, Profile]
) -> Callable[[Target, Item, int], str]:
    """A system message and a format reach the models."""
    bank = ItemBank(load_suites(suites))
    pupils = {name: SimulatedModel(model, bank) for name, model in models.items()}

    def script(
        target: Target,
        item: Item,
        _epoch: int,
    ) -> str:
        patch = target.request_patch
        suite = item.id.rpartition("-")[0]
        return answers.answer(
            pupils[target.model].sit(bank_item(item, suite=suite, place="")),
            models[target.model],
            prompt=item.input,
            json_asked=patch.response_format is not None,
            form_asked=answers.insists_on_form(patch.prompt_addendum),
        )

    return script
