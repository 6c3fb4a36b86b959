"""The walk: seed, rules, sinks, ledger, and what becomes of them."""
