"""View policies: how an image is looked at, one file each, found by name; the request parameter `tta`.

A policy is a module here with a POLICY; nothing else needs to know of it.
"""

from models import views
from models.catalog import find_modules
from models.views.base import UnknownPolicy, ViewPolicy


def list_policies() -> dict[str, ViewPolicy]:
    """Every view policy by its name, in name order."""
    found: list[ViewPolicy] = [module.POLICY for module in find_modules(views) if hasattr(module, "POLICY")]
    return {policy.name: policy for policy in sorted(found, key=lambda policy: policy.name)}


def find_policy(name: str) -> ViewPolicy:
    """Look up a policy by the value of `tta`; raises UnknownPolicy."""
    policies = list_policies()
    if name not in policies:
        raise UnknownPolicy(f"tta is {name[:64]!r}, it can be: {', '.join(policies)}")
    return policies[name]
