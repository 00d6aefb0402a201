#!/bin/sh
# build.sh BINARY ARCH VERSION OUT: a Debian package of a static binary, with the
# systemd units, in the directory OUT. Needs dpkg-deb. make deb calls it.
set -eu
binary=$1 arch=$2 version=$3 out=$4
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../../../.." && pwd)

# Debian's versions begin with a digit: v1.2.3-4-gabc is 1.2.3+4+gabc, a commit alone
# is below every release, and so is a candidate below its release.
version=$(printf %s "$version" | sed -E 's/^v([0-9])/\1/; s/-(alpha|beta|rc)/~\1/; s/-/+/g; s/[^A-Za-z0-9.+~]/./g')
case $version in
*.*.*) ;;
*) version=0~$version ;;
esac

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
put() { install -D -m "$1" "$2" "$root/$3"; }
put 755 "$binary" usr/bin/signpost
for role in indexer assigner frontend; do
	put 644 "$here/../systemd/signpost-$role.service" "usr/lib/systemd/system/signpost-$role.service"
	put 640 "$here/../systemd/$role.env" "etc/signpost/$role.env"
done
put 644 "$here/../systemd/pool.txt" etc/signpost/pool.txt
put 644 "$here/copyright" usr/share/doc/signpost/copyright
cat "$top/LICENSE" >>"$root/usr/share/doc/signpost/copyright"
for page in README.md doc/operations.md doc/commands.md; do
	put 644 "$top/$page" "usr/share/doc/signpost/${page##*/}"
done
for script in postinst prerm postrm; do
	put 755 "$here/$script" "DEBIAN/$script"
done
(cd "$root" && find etc -type f | LC_ALL=C sort | sed 's#^#/#') >"$root/DEBIAN/conffiles"
(cd "$root" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
size=$(du -sk --apparent-size "$root/usr" | cut -f1)
sed -e "s/@VERSION@/$version/; s/@ARCH@/$arch/; s/@SIZE@/$size/" "$here/control" >"$root/DEBIAN/control"
chmod 644 "$root/DEBIAN/conffiles" "$root/DEBIAN/md5sums" "$root/DEBIAN/control"
chmod 755 "$root"
find "$root" -mindepth 1 -type d -exec chmod 755 {} +
mkdir -p "$out"
dpkg-deb --root-owner-group -Zgzip --build "$root" "$out/signpost_${version}_$arch.deb"
