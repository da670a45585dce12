#!/bin/sh
# Installs Auto-WEKA and its dependencies into /opt/auto_weka; the build runs this. See SOURCES.md for the sources.
#
#     fetch_parts.sh 2013   the original authors' release, from Debian's packages and the Python index alone
#     fetch_parts.sh 2.6    the newer release, from the projects' sites (needs the open internet)
set -eu

here=$(dirname "$0")
target=/opt/auto_weka
scratch=$(mktemp --directory)
mkdir --parents "$target"

install_2013() {
    # the build backend must be the pinned setuptools, which is therefore installed first
    grep --after-context=2 '^setuptools' "$here/parts.txt" > "$scratch/setuptools.txt"
    grep --after-context=1 '^pyautoweka' "$here/parts.txt" > "$scratch/pyautoweka.txt"
    uv pip install --system --no-cache --require-hashes --requirements "$scratch/setuptools.txt"
    uv pip install --system --no-cache --require-hashes --no-deps --no-build-isolation \
        --requirements "$scratch/pyautoweka.txt"
    java=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/pyautoweka/java
    smac=$java/smac-v2.04.01-master-447-patched
    mkdir "$target/smac" "$target/jaxb"
    cp --recursive "$java/autoweka.jar" "$java/params" "$target/"
    # without its sources, its logging configuration (logback.xml replaces it), and jars that it does not load
    for jar in smac aclib fastrf commons-math-2.2 commons-math3-3.0 commons-collections-3.2.1 commons-io-2.1 \
        Jama-1.0.2 jcommander numerics4j-1.3 opencsv-2.3 slf4j-api-1.6.4 logback-core-1.0.0 logback-classic-1.0.0; do
        cp "$smac/$jar.jar" "$target/smac/"
    done
    cp --recursive "$smac/patches" "$target/smac/"

    # Java has no JAXB since version 11. Only the jars are needed, not the build tools that their packages depend on
    apt-get update
    cd "$scratch"
    for package in libjaxb-api-java libjaxb-java libistack-commons-java libtxw2-java libactivation-java; do
        apt-get download "$package"
    done
    for package in *.deb; do
        dpkg-deb --extract "$package" debian
    done
    for jar in jaxb-api jaxb-core jaxb-runtime istack-commons-runtime txw2 javax.activation; do
        cp --dereference "debian/usr/share/java/$jar.jar" "$target/jaxb/"
    done
    printf '{"auto_weka": "2013 (pyautoweka 1.1)", "weka": "3.7.7", "smac": "2.04.01"}\n' > "$target/versions.json"
}

install_2_6() {
    python - "$scratch/weka.zip" <<'PYTHON'
import sys, urllib.request

urllib.request.urlretrieve("https://prdownloads.sourceforge.net/weka/weka-3-8-6.zip", sys.argv[1])
PYTHON
    verify_sha256 "$scratch/weka.zip" "${WEKA_SHA256:-}" WEKA_SHA256
    python -m zipfile --extract "$scratch/weka.zip" "$scratch"
    cp "$scratch/weka-3-8-6/weka.jar" "$target/"
    mkdir "$target/smac" "$target/jaxb"
    WEKA_HOME=$scratch/home java -cp "$target/weka.jar" weka.core.WekaPackageManager -install-package Auto-WEKA 2.6.4
    cp --recursive "$scratch/home/packages/Auto-WEKA" "$target/package"
    verify_sha256 "$target/package/autoweka.jar" "${AUTO_WEKA_SHA256:-}" AUTO_WEKA_SHA256
    printf '{"auto_weka": "2.6.4", "weka": "3.8.6"}\n' > "$target/versions.json"
}

verify_sha256() {
    if [ -z "$2" ]; then
        echo "$1 was not verified. Verify it by other means, then pin it: --build-arg $3=$(sha256sum "$1" | cut -c 1-64)"
    else
        echo "$2  $1" | sha256sum --check -
    fi
}

case "$1" in
    2013) install_2013 ;;
    2.6) install_2_6 ;;
    *) echo "AUTO_WEKA is '$1': allowed are 2013 and 2.6" >&2; exit 64 ;;
esac
chmod --recursive u=rwX,go=rX "$target"
