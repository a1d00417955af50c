"""mergekit's YAML recipes, read as mergekit 0.1.5 reads them: text -> schema -> lines."""
