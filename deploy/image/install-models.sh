#!/bin/sh
# install-models FOLDER: puts the image's models into a folder that Triton and the services share. What is there stays, release.json
# too: a version never changes once it is released, and which release is active is the operator's word.
set -eu
to="${1:?usage: install-models FOLDER}"
from="${UNMASK_IMAGE_MODELS:-/app/share/unmask/model_repository}"
cd "$from"
find . -type f | while IFS= read -r file; do
    if [ ! -e "$to/$file" ]; then
        mkdir -p "$to/$(dirname "$file")"
        cp "$file" "$to/$file.new"
        mv "$to/$file.new" "$to/$file" # whole or not at all
    fi
done
# Triton's description of a model is made of the cards of all versions that are there now.
unmask models config --models "$to"
exec unmask models verify --models "$to"
