"""The groups that `mp` lists its commands in, in this order."""

START = "Start"
MODEL = "The model at hand"
HISTORY = "History"
MERGING = "Merging"
SHARING = "Sharing"
UPKEEP = "Upkeep"

PANELS = (START, MODEL, HISTORY, MERGING, SHARING, UPKEEP)
