"""What a training step costs, predicted from counts and measured rates, on this machine or on thousands of devices."""

from multimix.plan.forms import with_tuples
from multimix.plan.network import NetworkCount, Subject, count_network
from multimix.plan.rates import PRESETS, Assumed, Fitted, Rates, load_rates
from multimix.plan.simulate import Row, simulate
from multimix.plan.step import Setup, StepCost, step_cost
from multimix.plan.traffic import Link, Traffic, step_traffic
from multimix.plan.tuples import TupleProblem, tuple_works
from multimix.plan.work import Work

__all__ = [
    "PRESETS",
    "Assumed",
    "Fitted",
    "Link",
    "NetworkCount",
    "Rates",
    "Row",
    "Setup",
    "StepCost",
    "Subject",
    "Traffic",
    "TupleProblem",
    "Work",
    "count_network",
    "load_rates",
    "simulate",
    "step_cost",
    "step_traffic",
    "tuple_works",
    "with_tuples",
]
