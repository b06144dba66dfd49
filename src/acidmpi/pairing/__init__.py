"""How two ranks agree to exchange: protocols as pure state machines."""
