"""Multi-step word problems: from a story with its expression to an item.

The target is the value of `metadata.expression`, in exact fractions. A step is one operator of
the expression; dividing a percentage by 100 does not count. Distractors are values of the
expressions that a slip would lead to: a step left out, a sum in place of a difference.
"""

import ast
import operator
from collections.abc import Callable, Sequence
from fractions import Fraction
from random import Random

from generators import (
    arithmetic_goods,
    arithmetic_measures,
    arithmetic_money,
    arithmetic_rates,
    arithmetic_shops,
    arithmetic_travel,
)
from generators.items import Author, Item, graded
from generators.stories import Draw, Story

FAMILIES = (
    *arithmetic_money.FAMILIES,
    *arithmetic_shops.FAMILIES,
    *arithmetic_rates.FAMILIES,
    *arithmetic_travel.FAMILIES,
    *arithmetic_goods.FAMILIES,
    *arithmetic_measures.FAMILIES,
)
ENDINGS = (
    "Work it out step by step. End with one line of the form `ANSWER: <number>`.",
    "You may show your working. The last line must read `ANSWER: <number>`.",
    "Give the number alone, without a unit, on the final line: `ANSWER: <number>`",
    "Reason as you like, then close with the line `ANSWER: <number>`.",
)
OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def value(expression: str) -> Fraction:
    """The exact value of an expression of decimal numbers, + - * / and brackets."""

    def of(node: ast.expr) -> Fraction:
        match node:
            case ast.Constant(value=int() | float() as number):
                return Fraction(str(number))
            case ast.BinOp(left=left, op=op, right=right):
                return OPERATORS[type(op)](of(left), of(right))
            case _:
                raise ValueError(f"not arithmetic: {ast.unparse(node)} in {expression}")

    return of(ast.parse(expression, mode="eval").body)


def steps(expression: str) -> int:
    """How many operations the expression takes, percent signs not counted."""
    return sum(expression.replace("/100", "").count(sign) for sign in "+-*/")


def written(number: Fraction, *, money: bool) -> str:
    """`12.50` for money, else as few decimals (at most two) as the number needs."""
    text = f"{float(number):.2f}"
    return text if money else text.rstrip("0").rstrip(".")


def wrong_answers(story: Story, right: str) -> tuple[str, ...]:
    """Up to four answers that a slip leads to, none of them right."""
    slips = [value(e) for e in story.wrong]
    exact = value(story.expression)
    slips += [exact * 11 / 10, exact + 10, exact * 2]
    answers = dict.fromkeys(written(s, money=story.money) for s in slips if s > 0)
    return tuple(a for a in answers if a != right)[:4]


def difficulty(story: Story) -> float:
    """Steps count most; an idle number, a percentage and a change of units add to them."""
    points = 0.1 + 0.15 * (steps(story.expression) - 2)
    points += 0.1 * story.idle_numbers + 0.08 * story.conversions
    return graded(points + (0.08 if "%" in story.text else 0))


def item(story: Story, ending: str) -> Item | None:
    """None if the numbers drawn do not come out in whole cents, pieces or steps."""
    answer = value(story.expression)
    if answer <= 0 or (answer * 100).denominator != 1 or not 2 <= steps(story.expression) <= 6:
        return None
    if any(value(part).denominator != 1 or value(part) <= 0 for part in story.whole):
        return None
    if any((value(part) * 100).denominator != 1 for part in story.cents):
        return None
    target = written(answer, money=story.money)
    return Item(
        input=f"{story.text}\n\n{ending}",
        story=story.text,
        target=target,
        difficulty=difficulty(story),
        tags=(story.family, f"steps-{steps(story.expression)}", *story.tags()),
        distractors=wrong_answers(story, target),
        extra={"expression": story.expression, "steps": steps(story.expression)},
    )


def authors() -> Sequence[Author]:
    """One author per scenario family."""

    def author(family: Callable[[Draw], Story]) -> Author:
        def write(rng: Random) -> Item | None:
            return item(family(Draw(rng)), rng.choice(ENDINGS))

        return write

    return [author(family) for family in FAMILIES]
