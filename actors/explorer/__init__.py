"""Go-Explore, phase one: finds demonstrations in games whose rewards are rare (Ecoffet et al. 2021, Nature 590)."""
