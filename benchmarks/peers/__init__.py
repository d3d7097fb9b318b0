"""What trueread is measured against: written in the style of others, or bare of everything."""
