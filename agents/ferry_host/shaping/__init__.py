"""How the NICs of a host shape traffic: what passes next, on which member of a team, and until when."""
