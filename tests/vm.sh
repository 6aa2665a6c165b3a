#!/bin/bash
# Runs a command of this source tree under another kernel: a Debian kernel in qemu, under software emulation, with this
# machine's files as they are; what the command writes is forgotten, but for the directory in $VM_OUT.
#
#   tests/vm.sh [-s SUITE] [-t SECONDS] [-n NICS] [-d DEVICE] [-w FUNCTION] COMMAND...
#
#   -s SUITE    the Debian release whose kernel is taken: bookworm (6.1), trixie (6.12), sid; default trixie
#   -t SECONDS  the longest that it may take, boot and all; default 900
#   -n NICS     interfaces, eth0 and on, pairwise joined by a wire (eth0 to eth1, ...); default 0
#   -d DEVICE   what they are: virtio (default), igb, or another one that qemu has
#   -w FUNCTION warnings in this function of the kernel do not count
#
# Needs root, and installs qemu. The exit status is the command's, or 1 if the kernel complained; 124 if the time was over.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)

suite=trixie limit=900 nics=0 device=virtio known=-
while getopts s:t:n:d:w: option; do
	case $option in
	s) suite=$OPTARG ;;
	t) limit=$OPTARG ;;
	n) nics=$OPTARG ;;
	d) device=$OPTARG ;;
	w) known=$OPTARG ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
(($#)) || { sed -n '2,/^set/s/^# \?//p' "$0"; exit 2; }
((EUID == 0)) || { echo "vm: needs root" >&2; exit 1; }

say() { echo "vm: $*" >&2; }

tools=(qemu-system-x86 busybox-static cpio kmod xz-utils)
missing=()
for tool in "${tools[@]}"; do
	[[ $(dpkg-query -W -f '${db:Status-Status}' "$tool" 2>/dev/null || true) == installed ]] || missing+=("$tool")
done
if ((${#missing[@]})); then
	say "installing ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	install() { apt-get -qq -y --no-install-recommends install "${missing[@]}" </dev/null >/dev/null; }
	install 2>/dev/null || { apt-get -qq update && install; }
fi

# The kernel of a suite, unpacked once: $kernel/boot/vmlinuz-* or, newer, beside its modules in $kernel/lib/modules/*.
cache=$here/target/vm
kernel=$cache/$suite
fetch_kernel() {
	local lists=$cache/lists-$suite options mirror package
	say "fetching the kernel of $suite"
	rm -rf "$kernel" "$kernel.new"
	mkdir -p "$lists/partial" "$kernel.new"
	# The mirror that apt uses here, with another suite, in lists of our own.
	# shellcheck disable=SC2016 # apt-get's own variable
	mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -v security | head -n 1)
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$lists.list"
	options=(-qq -o Dir::Etc::sourceparts=/dev/null -o "Dir::Etc::sourcelist=$lists.list" -o "Dir::State::lists=$lists")
	apt-get "${options[@]}" update
	# Metapackages lead to the image, which newer releases have in several parts.
	apt-cache "${options[@]}" --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
		--no-enhances --no-pre-depends depends linux-image-amd64 | grep -E '^linux-.*[0-9]\.[0-9]' |
		while read -r package; do
			(cd "$kernel.new" && apt-get "${options[@]}" -o APT::Sandbox::User=root download "$package" >/dev/null)
		done
	for package in "$kernel.new"/*.deb; do
		dpkg-deb -x "$package" "$kernel.new"
		rm "$package"
	done
	[[ -d $kernel.new/lib/modules ]] || ln -s usr/lib "$kernel.new/lib"
	depmod -b "$kernel.new" "$(ls "$kernel.new/lib/modules")"
	mv "$kernel.new" "$kernel"
}
[[ -d $kernel ]] || fetch_kernel
version=$(ls "$kernel/lib/modules")
image=("$kernel"/boot/vmlinuz-*)
[[ -e ${image[0]} ]] || image=("$kernel/lib/modules/$version/vmlinuz")
say "Linux $version"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{bin,dev,proc,sys,lower,upper,new,m}
cp "$(command -v busybox)" "$root/bin/busybox"

# What is needed to reach this machine's files, in the order of loading; other modules are loaded from there.
first=()
for module in virtio_pci 9pnet_virtio 9p overlay; do
	while read -r kind file _; do
		[[ $kind == insmod ]] || continue
		name=$(basename "$file")
		name=${name%%.ko*}.ko
		[[ " ${first[*]} " == *" $name "* ]] && continue
		first+=("$name")
		case $file in
		*.xz) xz -dc "$file" >"$root/m/$name" ;;
		*.zst) zstd -qdc "$file" >"$root/m/$name" ;;
		*) cp "$file" "$root/m/$name" ;;
		esac
	done < <(modprobe -d "$kernel" -S "$version" --show-depends "$module" 2>/dev/null)
done

out=${VM_OUT:-}
printf '%q ' "$@" >"$root/command"
cat >"$root/init" <<END
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for m in ${first[*]}; do insmod /m/\$m || echo "vm: cannot load \$m"; done
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=1048576,cache=loose host /lower || poweroff -f
mount -t tmpfs tmpfs /upper; mkdir /upper/u /upper/w
mount -t overlay -o lowerdir=/lower,upperdir=/upper/u,workdir=/upper/w overlay /new || poweroff -f
for d in proc sys dev; do mount --move /\$d /new/\$d; done
mkdir -p /new/dev/pts /new/dev/shm
mount -t devpts devpts /new/dev/pts; mount -t tmpfs tmpfs /new/dev/shm; mount -t tmpfs tmpfs /new/run
# The tree may lie under /tmp.
mkdir /here; mount --bind "/new$here" /here
mount -t tmpfs tmpfs /new/tmp; mkdir -p "/new$here"; mount --bind /here "/new$here"
mount -t bpf bpf /new/sys/fs/bpf 2>/dev/null
mkdir -p /new/lib/modules; mount --bind "/new$kernel/lib/modules" /new/lib/modules 2>/dev/null
${out:+mkdir -p "/new$out"; mount -t 9p -o trans=virtio,version=9p2000.L out "/new$out"}
cp /command /new/run/command
cat >/new/run/go <<'GO'
cd "$here"
ulimit -l unlimited
for m in veth tun dummy virtio_net igb e1000e sch_ingress cls_bpf act_mirred xsk_diag; do modprobe \$m 2>/dev/null; done
ip link set lo up
for d in /sys/class/net/eth*; do [ -e \$d ] && ip link set \${d##*/} up; done
export PATH=\$PATH:\$HOME/.cargo/bin NMX_BUILT=1 NMX_PATIENCE=4 NETMAP_XDP_ENGINE=embedded
sh /run/command
status=\$?
if dmesg | grep -vE 'WARNING: .* ${known}[+]0x' | grep -E 'WARNING:|BUG:|Oops|refcount|unregister_netdevice'; then
	echo "vm: the kernel complained"
	dmesg | tail -n 60
	status=1
fi
echo "vm: status \$status"
GO
HOME=$HOME PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin chroot /new /bin/bash /run/go
poweroff -f
END
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet) >"$work/initrd"

# shellcheck disable=SC2054 # qemu's commas
args=(-machine q35 -accel tcg,thread=multi -cpu max -smp 2 -m "${VM_MEMORY:-3G}" -nodefaults -no-reboot -display none -serial stdio
	-kernel "${image[0]}" -initrd "$work/initrd" -append "console=ttyS0 quiet panic=-1 net.ifnames=0 mitigations=off"
	-virtfs "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap")
[[ -z $out ]] || args+=(-virtfs "local,path=$out,mount_tag=out,security_model=none")
# Zero-copy in virtio-net takes buffers that the device reaches as any PCI device would, and queues that can be reset.
[[ $device != virtio ]] ||
	device="virtio-net-pci,iommu_platform=on"
for ((i = 0; i < nics; i++)); do
	args+=(-netdev "hubport,id=n$i,hubid=$((i / 2))")
	args+=(-device "pcie-root-port,id=port$i,chassis=$((i + 1))")
	args+=(-device "$device,bus=port$i,netdev=n$i,mac=52:54:00:00:00:$(printf %02x "$i"),romfile=")
done

status=0
timeout --foreground -k 5 "$limit" qemu-system-x86_64 "${args[@]}" </dev/null | tr -d '\r' | tee "$work/console" || status=$?
if ((status)); then
	say "qemu ended with status $status (124: the time was over)"
	exit "$status"
fi
said=$(sed -n 's/^vm: status \([0-9]*\)$/\1/p' "$work/console" | tail -n 1)
[[ -n $said ]] || { say "the command did not come to its end"; exit 1; }
exit "$said"
