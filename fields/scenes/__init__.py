"""One reader per data format; `fieldmorph.fields.scenes.table` lists them and `load_scene` chooses."""
