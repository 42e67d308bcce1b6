"""Finding the image of a Pascal VOC annotation, and its size."""
from __future__ import annotations

import os
from collections import defaultdict

from src.dataset.image_paths import EXTENSIONS
from src.errors import UserError
from tools.image_header import read_header
from tools.voc.annotation import VocFile


class ImageFolder:
    """The images directly in a folder, found by the names in annotation files; "" where they are not available.

    Raises:
        UserError: there is no such folder.
    """

    def __init__(self, folder: str):
        if folder and not os.path.isdir(folder):
            raise UserError(f"there is no folder {folder!r}; give --images the folder with the images, or leave it out.")
        self.folder = folder
        self.names = set(os.listdir(folder)) if folder else set()
        self.by_stem = defaultdict(list)
        for name in sorted(self.names):
            stem, extension = os.path.splitext(name)
            if extension.lower() in EXTENSIONS:
                self.by_stem[stem].append(name)

    def find(self, voc: VocFile) -> str:
        """The name of an annotation's image, which may be missing in the folder.

        It is the annotation's filename, or else a file of that name with another extension, or else one named as the XML file.

        Raises:
            UserError: several images fit, or none does and the annotation does not name one.
        """
        if voc.filename in self.names:
            return voc.filename
        for stem in (voc.filename, os.path.splitext(voc.filename)[0], os.path.splitext(os.path.basename(voc.path))[0]):
            found = self.by_stem.get(stem, [])
            if len(found) > 1:
                raise UserError(f"{voc.path}: {' and '.join(found)} in {self.folder} may both be its image; write the whole "
                                "name into its <filename>.")
            if found:
                return found[0]
        if os.path.splitext(voc.filename)[1].lower() not in EXTENSIONS:
            raise UserError(f"{voc.path}: its <filename> {voc.filename!r} is not the name of an image"
                            + (f", and {self.folder} has none of its name." if self.folder else
                               "; give the folder of the images with --images."))
        return voc.filename

    def size_of(self, voc: VocFile, name: str) -> tuple[int, int]:
        """(width, height) of an annotation's image, in the pixels of its boxes.

        It is the annotation's <size>, which must be that of the image, as stored or as rotated by its EXIF data; without <size>
        it is that of the stored image. `name` is from `find`.

        Raises:
            UserError: the two differ, there is neither, or the image cannot be read.
        """
        if name not in self.names:
            if voc.size is None:
                raise UserError(f"{voc.path} has no <size>, and its image {name} is not there to be looked at; give the folder "
                                "that has it with --images.")
            return voc.size
        path = os.path.join(self.folder, name)
        header = read_header(path)
        if voc.size is not None and voc.size not in (header.size, header.upright_size):
            raise UserError(f"{voc.path}: its <size> is {voc.size[0]} x {voc.size[1]} (width x height), but {path} is "
                            f"{header.size[0]} x {header.size[1]}; if the boxes are right, correct or remove the <size>.")
        return voc.size or header.size
