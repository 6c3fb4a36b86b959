"""The backward walk: plan, seed, rules, sinks and ledger, and the maps made of its result."""
