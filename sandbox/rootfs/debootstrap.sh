#!/bin/sh
# Makes a directory with a small Debian and the code interpreter's Python in it, for SANDBOX_ROOT:
#   sudo sandbox/rootfs/debootstrap.sh DIRECTORY [SUITE [MIRROR]]
# Needs root and debootstrap. What pip is told by PIP_* variables and /etc/pip.conf holds here too.
set -eu
umask 022

[ $# -ge 1 ] || { echo "Usage: $0 DIRECTORY [SUITE [MIRROR]]" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
final=$1
suite=${2:-trixie}
[ "$(id -u)" = 0 ] || { echo "Only root can do this: use sudo." >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "Install debootstrap: apt install debootstrap." >&2; exit 1; }
[ ! -e "$final" ] || { echo "$final exists already: remove it, or name another directory." >&2; exit 1; }

# Under another name until it is whole, and without what is left of an interrupted one.
tree=$final.new
rm -rf --one-file-system "$tree"
trap 'rm -rf --one-file-system "$tree"' EXIT

echo "Installing Debian $suite"
debootstrap --variant=minbase --include=python3,python3-pip-whl,fonts-dejavu-core "$suite" "$tree" ${3:+"$3"} >"$final.log" ||
  { tail -n 5 "$final.log" >&2; exit 1; }

echo "Installing the packages"
mkdir -p "$tree/opt/wheels" "$tree/etc/ssl/certs"
cp "$here/requirements.txt" "$here/finish.py" "$tree/tmp/"
for file in /etc/resolv.conf /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
  [ ! -e "$file" ] || cp -L "$file" "$tree$file"
done
cat >"$tree/tmp/install.sh" <<'END'
export HOME=/tmp TMPDIR=/tmp PATH=/usr/sbin:/usr/bin:/sbin:/bin PIP_USER=0 PIP_ROOT_USER_ACTION=ignore
pip=$(echo /usr/share/python-wheels/pip-*.whl)
python3 -B "$pip/pip" install --quiet --no-input --no-cache-dir --no-compile --no-deps --disable-pip-version-check \
  --only-binary=:all: --require-hashes --target /opt/wheels -r /tmp/requirements.txt
python3 -I -S -B /tmp/finish.py /opt/wheels
END
# In name spaces of its own: nothing stays mounted, however this ends.
unshare --mount --pid --fork --kill-child sh -eu -c '
  mount -t proc proc "$1/proc"
  mount -t tmpfs tmpfs "$1/dev/shm"
  exec chroot "$1" /bin/sh -eu /tmp/install.sh
' sh "$tree"

echo "Leaving out what nobody runs"
find "$tree" -xdev -type f -perm /6000 -exec chmod a-s {} +
for path in boot dev home media mnt proc root run srv sys tmp var \
  etc/apt etc/pip.conf etc/resolv.conf etc/machine-id 'etc/shadow*' 'etc/gshadow*' 'etc/passwd*' 'etc/group*' 'etc/sub*id*' \
  usr/share/doc usr/share/info usr/share/man usr/share/locale usr/share/python-wheels usr/share/bash-completion \
  usr/lib/apt 'usr/bin/apt*' usr/sbin/debootstrap; do
  # The pattern is meant to be expanded.
  rm -rf --one-file-system "$tree"/$path
done
printf '%s\n' 'root:x:0:0:root:/nonexistent:/bin/sh' 'sandbox:x:1000:1000:sandbox:/home/sandbox:/bin/sh' \
  'nobody:x:65534:65534:nobody:/nonexistent:/bin/sh' >"$tree/etc/passwd"
printf '%s\n' 'root:x:0:' 'sandbox:x:1000:' 'nogroup:x:65534:' >"$tree/etc/group"
printf '%s\n' '127.0.0.1 localhost' '::1 localhost' >"$tree/etc/hosts"
echo sandbox >"$tree/etc/hostname"

mv "$tree" "$final"
trap - EXIT
rm -f "$final.log"
du -sh "$final"
echo "Now: SANDBOX_ROOT=$final npm start"
