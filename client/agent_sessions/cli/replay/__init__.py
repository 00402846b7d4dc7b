"""`sessionctl replay`: recorded conversations saved as agents would, restored, compared."""
