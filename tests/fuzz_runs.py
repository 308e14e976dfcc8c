"""Odd run folders and presets."""

import json
import os
import shutil

import numpy as np

import keras_mdm


class Runs:
    """Calls with odd run folders and presets; for a class that is `Folders` too."""

    def try_report(self):
        """The page of a run folder with odd files in it."""
        from keras_mdm_recipes import report

        rng = self.rng
        self.tree.mkdir()
        (self.tree / "preset").mkdir()
        config = {"recipe": "train-image", "settings": {"run": {"seed": 0}}}
        if rng.random() < 0.4:
            name = rng.choice(["settings", "class_names", "versions", "recipe"])
            config[name] = rng.choice([1, None, [1], "x", "\udcff", {"a": {"b": [1]}}])
        header = "stage,resolution,step,loss,loss_8,learning_rate"
        rows = [header, "1,8,5,0.5,0.5,0.1", "1,8,10,0.4,0.4,0.1"]
        if rng.random() < 0.6:
            odd = ["", "1", "a,b,c,d,e,f", "1,8,15,nan,inf,0", "\0", header, '"']
            odd += ["1,8,2" + ",1" * 9, "1,8,12,0.3,x,0.1", "1,8,7,0.4"]
            rows.insert(rng.randint(0, 3), rng.choice(odd))
        files = {"config.json": json.dumps(config), "history.csv": "\n".join(rows)}
        files["noise_levels.csv"] = rng.choice(
            [
                *("", "stage,step\n1,2", "x"),
                "stage,resolution,step,level,log_snr_from,log_snr_to,loss,samples\n"
                "1,8,5,8,-2,0,0.5,4\n1,8,5,8,0,2,0.1,3",
            ]
        )
        for name, text in files.items():
            if rng.random() < 0.9:
                (self.tree / name).write_text(text, encoding="utf-8")
        (self.tree / "samples").mkdir()
        for _ in range(rng.randint(0, 2)):
            path = self.tree / "samples" / f"stage1_{self.name()}.png"
            path.write_bytes(rng.randbytes(20))

        def call():
            report.write_report(self.tree)
            page = (self.tree / "report.html").read_text(encoding="utf-8")
            assert page.rstrip().endswith("</html>") and "<script" not in page

        return self.on_tree(call, ["report.html"]), files

    def try_preset_folder(self):
        """A preset that is damaged, or has odd files beside what it needs."""
        if not hasattr(self, "preset"):
            self.preset = self.folder.parent / f"{self.folder.name}_preset"
            self.mdm.save_to_preset(self.preset, overwrite=True)
        rng = self.rng
        shutil.copytree(self.preset, self.tree)
        path = rng.choice(sorted(p for p in self.tree.rglob("*") if p.is_file()))
        odd = rng.choice("beside gone cut empty flipped folder pipe".split())
        if odd == "beside":
            self.plant_odd()
        elif odd in ("cut", "flipped"):
            data = bytearray(path.read_bytes())
            place = rng.randrange(len(data))
            data[place] ^= 1 << rng.randrange(8)
            path.write_bytes(data if odd == "flipped" else data[:place])
        else:
            path.unlink()
            kinds = {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path)}
            kinds |= {"empty": path.touch, "gone": lambda: None}
            kinds[odd]()

        def call():
            mdm = keras_mdm.MDM.from_preset(self.tree)
            for one, two in zip(
                mdm.network.weights, self.mdm.network.weights, strict=True
            ):
                np.testing.assert_array_equal(one, two)

        return self.on_tree(call), {"file": path.name, "odd": odd}
