#!/bin/sh
# Runs while the image is built: tidy-image.sh ENVIRONMENT ROOT. Copies the environment under ROOT, without
# what nothing imports, with bytecode, and such that two builds of the same sources are the same byte by byte.
set -eu
environment=$1 root=$2
site=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# Tests of packages; the synchronous client, as large as the asynchronous one, which alone is used.
rm -rf "$site"/numpy/tests "$site"/numpy/*/tests "$site"/numpy/*/*/tests "$site"/kubernetes/client
# Headers, sources in C and Cython, and types: nothing is compiled or checked here.
find "$site" -type f \( -name '*.[ach]' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pyi' \) -delete
# Commands of packages, and what environments have for shells.
find "$environment/bin" ! -type d ! -name 'python*' ! -name wholepod ! -name kubectl-wholepod -delete
# What uv notes about this very build: when, and from which folder.
notes='uv_cache\.json\|uv_build\.json\|direct_url\.json'
find "$site"/wholepod-*.dist-info -regex ".*/\($notes\)" -delete
sed -i "/\/\($notes\),/d" "$site"/wholepod-*.dist-info/RECORD
rm -f "$environment/.lock" "$environment/.gitignore" "$environment/CACHEDIR.TAG"

# The bytecode is not checked against the sources' times: nobody can change them. One process in one order,
# and strings hashed alike: both can show in bytecode.
find "$environment" -name __pycache__ -type d -prune -exec rm -rf {} +
PYTHONHASHSEED=0 "$environment/bin/python" -m compileall -q -j 1 --invalidation-mode unchecked-hash "$site"

mkdir -p "$root$(dirname "$environment")"
cp -a "$environment" "$root$environment"
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
