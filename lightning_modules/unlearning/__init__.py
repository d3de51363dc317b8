"""The parts of UBT: its phases, the evidence that they weigh, and what they find."""
