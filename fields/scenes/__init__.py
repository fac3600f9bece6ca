"""One reader per data format; `fieldmorph.fields.scene.READERS` lists them and `load_scene` chooses."""
