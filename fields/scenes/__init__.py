"""One loader per data format; `fieldmorph.fields.scene.load_scene` chooses."""
