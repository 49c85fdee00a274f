"""Corpora of every layout: what their trees say of a picture, which layout a tree is taken for, and what is left out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from PIL import Image

from tests.training.drawn_faces import drawn_face
from unmask_training.data.corpora import LAYOUTS, Source, read, read_all, recognise
from unmask_training.data.corpora_tree import Found, joined, walk

HASHES = ("2ac43aa43bf473f9a9c09b4b608619d3", "b039e05887ddaad1a72964d5d1ab88d3", "ffc43aa43bf473f9a9c09b4b608619d3")


def tree(root: Path, *paths: str, texts: Mapping[str, str] | None = None) -> Path:
    """A folder of drawn faces, every one of other bytes, and of texts."""
    root.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn_face(48, number)).save(root / path)
    for path, text in (texts or {}).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return root


def told(source: Source) -> dict[str, tuple[str, str, str, str]]:
    """Label, generator, source and split of every picture by its path."""
    return {one.path: (one.label, one.generator, one.source, one.split) for one in source.corpus.found}


def found(source: Source, path: str) -> Found:
    """The picture of a path."""
    return next(one for one in source.corpus.found if one.path == path)


def test_folders_are_generators_beside_a_real_one(tmp_path: Path) -> None:
    paths = ("real/ffhq/a.png", "real/b.JPG", "sdxl/c.png", "Deepfakes/d.webp", "loose.png", "sdxl/notes/readme.png")
    source = read(tree(tmp_path / "mine", *paths, texts={"sdxl/list.txt": "no picture"}))
    assert source.layout == "folders" and source.corpus.left_out == [
        ("loose.png", "no folder says whether it is real or generated")
    ]
    assert told(source) == {
        "real/ffhq/a.png": ("real", "", "ffhq", ""),
        "real/b.JPG": ("real", "", "mine", ""),
        "sdxl/c.png": ("synthetic", "sdxl", "mine", ""),
        "sdxl/notes/readme.png": ("synthetic", "sdxl", "mine", ""),
        "Deepfakes/d.webp": ("manipulated", "Deepfakes", "mine", ""),
    }


@pytest.mark.parametrize(("train", "test"), [("train/{}/a.png", "test/{}/b.png"), ("{}/Train/a.png", "{}/test/b.png")])
def test_split_levels_may_stand_above_or_below(tmp_path: Path, train: str, test: str) -> None:
    paths = [path.format(kind) for kind in ("0_real", "flux") for path in (train, test)]
    source = read(tree(tmp_path / "mine", *paths))
    assert source.layout == "folders"
    assert told(source)[train.format("flux")] == ("synthetic", "flux", "mine", "train")
    assert told(source)[test.format("0_real")] == ("real", "", "mine", "test")


def test_genimage_tells_ai_from_nature(tmp_path: Path) -> None:
    generators = ("Midjourney", "stable_diffusion_v_1_4/imagenet_ai_0419_sdv4")
    paths = [f"{name}/{split}/{word}/x.png" for name in generators for split in ("train", "val") for word in ("ai", "nature")]
    source = read(tree(tmp_path / "GenImage", *paths))
    assert source.layout == "genimage" and len(source.corpus.found) == 8 and not source.corpus.left_out
    assert told(source)["Midjourney/val/ai/x.png"] == ("synthetic", "Midjourney", "GenImage", "val")
    assert told(source)[f"{generators[1]}/train/ai/x.png"] == ("synthetic", "stable_diffusion_v_1_4", "GenImage", "train")
    assert told(source)[f"{generators[1]}/train/nature/x.png"] == ("real", "", "GenImage", "train")


def test_real_and_fake_may_stand_below_or_above_generators_or_alone(tmp_path: Path) -> None:
    below = told(read(tree(tmp_path / "wild", "DDPM/real/a.png", "DDPM/fake/b.png", "progan/cat/1_fake/c.png")))
    assert below["DDPM/fake/b.png"][:2] == ("synthetic", "DDPM") and below["progan/cat/1_fake/c.png"][1] == "progan"
    above = told(
        read(tree(tmp_path / "above", "0_real/ffhq/a.png", "1_fake/stargan/b.png", "manipulated/mine/c.png", "misc/d.png"))
    )
    assert above["0_real/ffhq/a.png"] == ("real", "", "ffhq", "") and above["1_fake/stargan/b.png"][:2] == (
        "manipulated",
        "stargan",
    )
    assert above["manipulated/mine/c.png"][:2] == ("manipulated", "mine") and "misc/d.png" not in above
    assert told(read(tree(tmp_path / "alone", "train/real/a.png", "train/fake/b.png")))["train/fake/b.png"][1] == "alone"


def test_openfake_metadata_gives_models_and_groups_prompts(tmp_path: Path) -> None:
    header = "file_name,prompt,label,model,type,release_date\n"
    train = header + 'train/a.png,"a man, smiling",fake,flux.1-dev,base,2024-08\ntrain/b.png,"a man, smiling",real,,,\n'
    texts = {"train/metadata.csv": train, "test/metadata.csv": header + "c.png,,fake,faceswap,,\n"}
    source = read(tree(tmp_path / "OpenFake", "train/a.png", "train/b.png", "test/c.png", texts=texts))
    assert source.layout == "genimage"
    assert told(source) == {
        "train/a.png": ("synthetic", "flux.1-dev", "OpenFake", "train"),
        "train/b.png": ("real", "", "OpenFake", "train"),
        "test/c.png": ("manipulated", "faceswap", "OpenFake", "test"),
    }
    a, b, c = (found(source, path) for path in ("train/a.png", "train/b.png", "test/c.png"))
    assert a.group == b.group != "" and c.group == "" and a.extra["release_date"] == "2024-08"


def test_dffd_has_its_subsets_labels_and_splits(tmp_path: Path) -> None:
    subsets = ("ffhq", "youtube", "stylegan_ffhq", "pggan_v1", "faceapp", "Face2Face")
    paths = [f"{subset}/{split}/x.png" for subset in subsets for split in ("train", "validation", "test")]
    source = read(tree(tmp_path / "dffd", *paths, "stylegan_ffhq/mask/train/m.png", "extra/x.png"))
    assert source.layout == "dffd" and len(source.corpus.found) == 18
    assert source.corpus.left_out == [("extra/x.png", "in none of DFFD's subsets")]
    assert told(source)["ffhq/train/x.png"] == ("real", "", "ffhq", "train")
    assert told(source)["youtube/test/x.png"] == ("real", "", "ff_youtube", "test")
    assert told(source)["pggan_v1/validation/x.png"] == ("synthetic", "pggan_v1", "dffd", "validation")
    assert {told(source)[f"{name}/train/x.png"][0] for name in ("faceapp", "Face2Face")} == {"manipulated"}


FF = (
    "original_sequences/youtube/c23/frames/000/0001.png",
    "original_sequences/youtube/c40/images/003/0001.png",
    "original_sequences/youtube/c23/frames/007_0012.png",
    "original_sequences/actors/c23/frames/01__hugging_happy/0001.png",
    "manipulated_sequences/Deepfakes/c23/frames/000_003/0001.png",
    "manipulated_sequences/FaceShifter/c23/frames/003_000/0001.png",
    "manipulated_sequences/NeuralTextures/c23/frames/007_009/0001.png",
    "manipulated_sequences/DeepFakeDetection/c23/frames/01_02__exit_phone_room__YVGY8LOK/0001.png",
)


def test_faceforensics_keeps_a_video_and_its_forgeries_in_one_group(tmp_path: Path) -> None:
    masks = "manipulated_sequences/Deepfakes/c23/masks/000_003/0001.png"
    source = read(tree(tmp_path / "ff", *FF, masks, "original_sequences/loose.png"))
    assert source.layout == "faceforensics" and {one.path for one in source.corpus.found} == set(FF)
    assert source.corpus.left_out == [
        ("original_sequences/loose.png", "not a frame of original_sequences or manipulated_sequences")
    ]
    groups = {path: found(source, path).group for path in FF}
    assert groups[FF[0]] == groups[FF[1]] == groups[FF[4]] == groups[FF[5]]
    assert groups[FF[3]] == groups[FF[7]] and groups[FF[2]] == groups[FF[6]] and len(set(groups.values())) == 3
    assert told(source)[FF[0]] == ("real", "", "ff_youtube", "") and told(source)[FF[3]][2] == "ff_actors"
    assert told(source)[FF[5]] == ("manipulated", "FaceShifter", "faceforensics", "")
    assert found(source, FF[1]).extra == {"compression": "c40", "video": "003"}


def test_faceforensics_takes_the_official_split_where_it_is(tmp_path: Path) -> None:
    texts = {"splits/train.json": '[["000", "003"]]', "test.json": '[["007", "009"]]'}
    splits = {path: split for path, (*_, split) in told(read(tree(tmp_path / "ff", *FF, texts=texts))).items()}
    assert splits[FF[4]] == splits[FF[1]] == "train" and splits[FF[6]] == splits[FF[2]] == "test" and splits[FF[7]] == ""
    (tmp_path / "ff/test.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"test\.json: expected a list of pairs"):
        read(tmp_path / "ff")
    (tmp_path / "ff/test.json").write_text("[[")
    with pytest.raises(ValueError, match=r"test\.json: not JSON"):
        read(tmp_path / "ff")


def forgerynet(root: Path, lines: Sequence[str]) -> Path:
    """A tree in ForgeryNet's form: the list beside a folder that the archive was unpacked into."""
    paths = [line.split()[0] for line in lines if line.startswith("train_release/") and "missing" not in line]
    return tree(
        root, *(f"Training/image2/{path}" for path in paths), texts={"Training/image_list.txt": "\n".join(lines) + "\n"}
    )


def test_forgerynet_goes_by_the_folder_of_the_method(tmp_path: Path) -> None:
    a, b, c = HASHES
    lines = [
        f"train_release/7/{a}/{b}/frame00038.jpg 1 1 15",
        f"train_release/1/{b}/{a}/f.jpg 1 1 1",
        f"train_release/12/{c}/f.jpg 1 2 12",
    ]
    lines += [
        "train_release/19/id0/video/f.jpg 0 0 19",
        "",
        f"train_release/16/{c}/r.jpg 1 0 16",
        "train_release/2/missing.jpg 1 1 2",
    ]
    source = read(forgerynet(tmp_path / "fn", lines))
    base = "Training/image2/train_release"
    assert source.layout == "forgerynet"
    assert told(source)[f"{base}/7/{a}/{b}/frame00038.jpg"] == ("manipulated", "Talking Head Video", "forgerynet", "train")
    assert told(source)[f"{base}/19/id0/video/f.jpg"] == ("real", "", "voxceleb", "train")
    assert source.corpus.left_out == [
        (f"train_release/16/{c}/r.jpg", "its folder 16 and its label 1 contradict each other"),
        ("train_release/2/missing.jpg", "named in the list, but not there"),
    ]
    groups = [one.group for one in source.corpus.found]
    assert groups[0] == groups[1] and len(set(groups)) == 3
    assert found(source, f"{base}/12/{c}/f.jpg").extra["forgerynet_triple"] == "2"


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("train_release/7/a.jpg 1 1", "is not `PATH BINARY TRIPLE SIXTEEN`"),
        ("../7/a.jpg 1 1 7", "is not `PATH BINARY TRIPLE SIXTEEN`"),
        ("train_release/33/a.jpg 1 1 7", "is the number of a method, 1 to 19"),
    ],
)
def test_a_broken_list_of_forgerynet_is_named_by_its_line(tmp_path: Path, line: str, match: str) -> None:
    with pytest.raises(ValueError, match=f"image_list.txt: line 1: .*{match}"):
        read(tree(tmp_path / "fn", "Training/x.png", texts={"Training/image_list.txt": line}))


HEADER = "path,label,generator,source,group,split,licence,age\n"


def test_a_manifest_is_believed_before_the_folders_and_keeps_further_columns(tmp_path: Path) -> None:
    text = HEADER + "real/a.png,synthetic,sdxl,mine,g1,test,CC0,30\nreal/a.png,real,,mine,g1,,,\nb.png,real,,mine,,,, \n"
    source = read(tree(tmp_path / "m", "real/a.png", "b.png", "fake/c.png", texts={"manifest.csv": text}))
    assert source.layout == "manifest" and told(source) == {
        "real/a.png": ("synthetic", "sdxl", "mine", "test"),
        "b.png": ("real", "", "mine", ""),
    }
    assert found(source, "real/a.png").extra == {"age": "30"} and found(source, "b.png").extra == {}
    assert source.corpus.left_out == [("real/a.png", "named again in line 3 of manifest.csv")]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("path,label\na.png,real\n", "no column generator, source, group, split, licence"),
        (HEADER + "a.png,fake,x,mine,,,,\n", "line 2: label 'fake' is none of real, synthetic, manipulated"),
        (HEADER + "../a.png,real,,mine,,,,\n", r"line 2: path '\.\./a\.png' is not one within the folder"),
        (HEADER + "/a.png,real,,mine,,,,\n", "line 2: path '/a.png' is not one within"),
        (HEADER + "a.png,real,,,,,,\n", "line 2: neither a generator nor a source"),
        (HEADER + "a.png,real,,mine,,later,,\n", "line 2: split 'later' is none of"),
        (HEADER + "a.png,real,,mine,,,,,,surplus\n", "line 2 has more fields"),
    ],
)
def test_a_broken_manifest_is_named_by_its_line(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(ValueError, match=f"manifest.csv: {match}"):
        read(tree(tmp_path / "m", "a.png", texts={"manifest.csv": text}))


def test_a_manifest_or_metadata_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tree(tmp_path / "m", "a.png") / "manifest.csv").write_bytes(b"path,label\xff\xfe\n")
    with pytest.raises(ValueError, match="not read as CSV in UTF-8"):
        read(tmp_path / "m")
    for text, match in (
        ("label\nreal\n", "no path within the folder in a column file_name"),
        ("file_name,label\na.png,1\n", "label '1' is none of"),
    ):
        with pytest.raises(ValueError, match=match):
            read(tree(tmp_path / "o", "a.png", texts={"metadata.csv": text}))
    with pytest.raises(ValueError, match="not of layout manifest"):
        read(tree(tmp_path / "f", "real/a.png"), "manifest")


def test_an_unknown_tree_is_refused_with_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no known layout") as refused:
        read(tree(tmp_path / "what", "one/a.png", "two/b.png"))
    assert all(name in str(refused.value) and layout.expects in str(refused.value) for name, layout in LAYOUTS.items())
    assert told(read(tmp_path / "what", "folders"))["one/a.png"][:2] == ("synthetic", "one")
    with pytest.raises(ValueError, match="nothing in it fits layout dffd, which is ffhq/"):
        read(tmp_path / "what", "dffd")


def test_a_tree_of_two_layouts_is_not_guessed(tmp_path: Path) -> None:
    both = tree(tmp_path / "both", FF[0], "real/a.png", "sdxl/b.png")
    with pytest.raises(ValueError, match="looks like folders and faceforensics; say which with --layout"):
        read(both)
    assert read(both, "faceforensics").layout == "faceforensics"
    assert recognise(walk(tree(tmp_path / "one", FF[0]))).name == "faceforensics"


def test_videos_without_frames_empty_folders_and_no_folder_are_said(tmp_path: Path) -> None:
    videos = tree(tmp_path / "v", texts={"original_sequences/youtube/c23/videos/000.mp4": ""})
    with pytest.raises(ValueError, match="1 videos and no frames"):
        read(videos)
    nothing = tree(tmp_path / "nothing")
    (nothing / "real").mkdir()
    source = read(nothing)
    assert source.corpus.left_out == [("real/", "empty folder"), ("", "no pictures in it")] and not source.corpus.found
    assert "no pictures" in source.summary()
    with pytest.raises(ValueError, match="no such folder"):
        read(tmp_path / "nowhere")


def test_links_are_followed_once_and_hidden_files_passed_over(tmp_path: Path) -> None:
    root = tree(tmp_path / "mine", "real/a.png", ".cache/real/b.png", "sdxl/.c.png", "sdxl/d.png")
    (root / "sdxl/round").symlink_to(root)
    (root / "flux").symlink_to(tree(tmp_path / "elsewhere", "e.png"))
    assert walk(root).pictures == ("flux/e.png", "real/a.png", "sdxl/d.png")


def test_two_corpora_of_one_name_are_refused(tmp_path: Path) -> None:
    one, two = tree(tmp_path / "a/faces", "real/a.png"), tree(tmp_path / "b/faces", "real/a.png")
    with pytest.raises(ValueError, match="two sources are called faces; rename one"):
        read_all([one, two])
    assert [source.tree.name for source in read_all([one, one.parent / ".." / "a"], "folders")] == ["faces", "a"]


def test_links_join_through_others() -> None:
    names = joined([("b", "c"), ("d",), ("c", "a"), ("e", "f")])
    assert names["a"] == names["b"] == names["c"] == "a" and names["d"] == "d" and names["e"] == names["f"] == "e"
    assert joined([]) == {} and json.dumps(joined([("x", "x")])) == '{"x": "x"}'
