#!/usr/bin/env bash
# Installs fedfab on a Debian 12 box, upgrades it, rolls it back, removes it.
set -euo pipefail

usage() {
  cat <<'END'
usage: install.sh [--wheels DIR] [OPTION…]     install, or upgrade to what DIR (default: this source tree) holds
       install.sh --rollback [OPTION…]         go back to the version before the last upgrade
       install.sh --uninstall [--purge]        remove the programs; with --purge configuration, keys and data, too

  --wheels DIR    folder with the wheels of fedfab and all it needs (made by deploy/wheels); nothing is downloaded
  --upgrade       the same as no option: an upgrade is an installation beside the old version, then a switch
  --root DIR      put everything below DIR, for an image or a trial; starts nothing
  --dry-run       say what would be done, and do nothing
  --help          this text

/opt/fedfab/versions/VERSION   programs; /opt/fedfab/current is the version in use, /opt/fedfab/previous the one before
/etc/fedfab                    configuration, keys, secrets; never changed, backed up to /var/backups/fedfab before each switch
/var/lib/fedfab                data
END
}

here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
action=install wheels='' root='' dry='' purge=''

main() {
  arguments "$@"
  programs=$root/opt/fedfab etc=$root/etc/fedfab data=$root/var/lib/fedfab backups=$root/var/backups/fedfab
  command=$root/usr/local/bin/fedfab units=$root/etc/systemd/system
  [ -n "$root$dry" ] || [ "$(id -u)" = 0 ] || fail "run it as root: sudo $0 $*"
  "$action"
}

arguments() {
  while [ $# -gt 0 ]; do
    case $1 in
      --upgrade) ;;
      --rollback) action=rollback ;;
      --uninstall) action=uninstall ;;
      --purge) purge=yes ;;
      --dry-run) dry=yes ;;
      --wheels | --root)
        [ $# -ge 2 ] || fail "$1 needs a folder"
        [ -d "$2" ] || fail "$1 $2: there is no such folder"
        [ "$1" = --wheels ] && wheels=$(realpath "$2") || root=$(realpath "$2")
        [ "$root" != / ] || root=''
        shift
        ;;
      -h | --help) usage && exit ;;
      *) fail "unknown option $1; --help lists them" ;;
    esac
    shift
  done
  [ -z "$purge" ] || [ "$action" = uninstall ] || fail "--purge goes with --uninstall"
}

# ---- what can be asked for --------------------------------------------------------------------------------------------------------

install() {
  python_is_there
  gather
  release=$(release_of "$wheels")
  digests=$(cd "$wheels" && sha256sum ./*.whl)
  old=$(target "$programs/current")
  version=$(name_of "$release")
  say "fedfab $version${old:+, in place of $old}"
  account
  unpack
  accepts "$version" "the configuration does not pass with fedfab $version, so ${old:-nothing} stays in use; correct it and try again"
  backup
  switch "$version" "$old"
  prune
  report
}

rollback() {
  old=$(target "$programs/current") version=$(target "$programs/previous")
  [ -n "$version" ] || fail "there is no version before ${old:-the first}"
  say "fedfab $version, in place of $old"
  accepts "$version" "the configuration does not pass with fedfab $version, so $old stays in use. If it was migrated since, put the files
from before back (beside them, *.bak; all of $etc: $backups) and try again"
  backup
  switch "$version" "$old"
  report
}

uninstall() {
  for unit in fedfab-gateway.service fedfab-coordinator.service fedfab.target; do
    [ -e "$units/$unit" ] || continue
    ! systemd_runs || run systemctl stop "$unit"
    ! command -v systemctl >/dev/null || run systemctl --quiet ${root:+--root="$root"} disable "$unit"
    run rm -f "$units/$unit"
  done
  ! systemd_runs || run systemctl daemon-reload
  run rm -rf "$programs" "$command"
  if [ -n "$purge" ]; then
    run rm -rf "$etc" "$data" "$backups"
    [ -z "$(account_number)" ] || run userdel --prefix "$root/" fedfab
    say "removed, with configuration, keys and data"
  else
    say "removed; kept: $etc, $data, $backups and the user fedfab (--uninstall --purge removes them)"
  fi
}

# ---- steps ------------------------------------------------------------------------------------------------------------------------

python_is_there() {
  python=$(command -v /usr/bin/python3 || command -v python3) || fail "there is no python3: apt install python3 python3-venv"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$("$python" --version) is too old, expected 3.11 or later"
  "$python" -c 'import ensurepip, venv' 2>/dev/null || fail "Python's venv is not installed: apt install python3-venv"
}

gather() {
  [ -z "$wheels" ] || return 0
  [ -x "$here/wheels" ] || fail "this is not a source tree, so say where the wheels are: --wheels DIR"
  step "downloading and building wheels"
  wheels=$(mktemp -d)
  trap 'rm -rf "$wheels"' EXIT
  PYTHON=$python "$here/wheels" "$wheels"
}

account() {
  if [ -z "$(account_number)" ]; then
    if [ -z "$root" ] || [ -f "$root/etc/passwd" ]; then
      run useradd --prefix "$root/" --system --user-group --home-dir /var/lib/fedfab --no-create-home --shell /usr/sbin/nologin fedfab
    else
      say "$root has no /etc/passwd: create the user fedfab there, and give it /etc/fedfab and /var/lib/fedfab"
    fi
  fi
  owner=$(account_number)
  run mkdir -p "$programs/versions" "$etc/conf.d" "$data" "$backups" "$units" "$(dirname "$command")"
  run chmod 750 "$etc" "$etc/conf.d" "$data"
  run chmod 700 "$backups"
  [ -e "$etc/environment" ] || run cp "$here/environment" "$etc/"
  if [ -n "$owner" ] && [ "$(id -u)" = 0 ]; then
    run chown "0:${owner#*:}" "$etc" "$etc/conf.d" "$etc/environment"
    run chown "$owner" "$data"
  fi
}

# A version is whole once its last file, `whole`, is there; what an interrupted run left is made anew.
unpack() {
  local folder=$programs/versions/$version
  if [ "$(cat "$folder/whole" 2>/dev/null)" = "$digests" ]; then
    say "$folder is there already"
    return 0
  fi
  step "installing into $folder"
  run rm -rf "$folder"
  run "$python" -m venv "$folder"
  share "$folder"
  pip=("$folder/bin/pip" --isolated --disable-pip-version-check --quiet install --no-index --no-deps)
  run "${pip[@]}" "$wheels"/*.whl
  run "${pip[@]}" --force-reinstall "$wheels"/fedfab-*.whl
  run cp "$here/install.sh" "$here/environment" "$folder/"
  [ -z "$(unit_source)" ] || run cp -r "$(unit_source)" "$folder/systemd"
  [ -z "$dry" ] || return 0
  [ -z "$root" ] || grep -rlI "^#!$root/" "$folder/bin" | xargs -r sed -i "1s|^#!$root/|#!/|"
  echo "$digests" >"$folder/whole"
}

# What the version in use has already takes no time and no place again: the same files under a second name. (pip never writes into one.)
share() {
  local packages
  packages=$("$python" -c 'import sys; print("lib/python%d.%d/site-packages" % sys.version_info[:2])')
  [ -n "$old" ] && [ -d "$programs/current/$packages" ] || return 0
  run rm -rf "${1:?}/$packages"
  run cp -al "$programs/versions/$old/$packages" "$1/$packages"
}

accepts() {
  local kind
  for kind in gateway coordinator; do
    [ -e "$etc/$kind.toml" ] || continue
    step "checking $etc/$kind.toml with fedfab $1"
    [ -n "$dry" ] || as_service "$programs/versions/$1/bin/python" -P -m cli.main "$kind" check -c "$etc/$kind.toml" >/dev/null || fail "$2"
  done
}

backup() {
  [ -n "$old" ] && [ "$old" != "$version" ] || return 0
  local file
  file=$backups/config-$(date -u +%Y%m%dT%H%M%SZ)-$old.tar.gz
  step "saving $etc to $file"
  run tar -C "$(dirname "$etc")" -czf "$file" fedfab
  run chmod 600 "$file"
  [ -n "$dry" ] || find "$backups" -name 'config-*.tar.gz' | sort -r | tail -n +11 | xargs -r rm -f
}

switch() {
  step "switching to fedfab $1"
  activate "$1"
  [ -z "$2" ] || [ "$1" = "$2" ] || point "$programs/previous" "$2"
  systemd_runs || return 0
  for unit in fedfab-gateway fedfab-coordinator; do
    configured "$unit" || continue
    run systemctl restart "$unit.service" && continue
    if [ -z "$2" ] || [ "$1" = "$2" ]; then
      fail "$unit does not start: journalctl -u $unit"
    fi
    activate "$2"
    point "$programs/previous" "$1"
    run systemctl restart "$unit.service" || true
    fail "$unit does not start with fedfab $1 (journalctl -u $unit), so $2 is in use again"
  done
}

activate() {
  local unit
  point "$programs/current" "$1"
  run ln -sfn /opt/fedfab/current/bin/fedfab "$command"
  for unit in "$programs/versions/$1/systemd/"*.service "$programs/versions/$1/systemd/"*.target; do
    [ -e "$unit" ] || continue
    run cp "$unit" "$units/"
    ! command -v systemctl >/dev/null || run systemctl --quiet ${root:+--root="$root"} enable "$(basename "$unit")"
  done
  ! systemd_runs || run systemctl daemon-reload
}

prune() {
  local each
  for each in "$programs"/versions/*; do
    case $(basename "$each") in
      "$version" | "$(target "$programs/previous")" | '*') ;;
      *) run rm -rf "$each" ;;
    esac
  done
}

report() {
  say "done: fedfab $version is in use"
  if ! systemd_runs; then
    say "systemd does not run here, so nothing was started"
  elif ! [ -e "$etc/gateway.toml" ] && ! [ -e "$etc/coordinator.toml" ]; then
    say "nothing is configured yet, so nothing was started. Next:"
    say "  fedfab gateway init /etc/fedfab --data-dir /var/lib/fedfab/gateway    then edit /etc/fedfab/gateway.toml"
    say "  fedfab gateway check -c /etc/fedfab/gateway.toml && systemctl start fedfab-gateway"
  fi
}

# ---- words ------------------------------------------------------------------------------------------------------------------------

say() {
  echo "fedfab: $1"
}

step() {
  say "$1 …"
}

fail() {
  echo "fedfab: error: $1" >&2
  exit 1
}

run() {
  if [ -n "$dry" ]; then
    echo "  would run: $*"
  else
    "$@"
  fi
}

# The version that a link stands for; nothing where there is no link.
target() {
  if [ -L "$1" ]; then
    basename "$(readlink "$1")"
  fi
}

# A crash leaves the old link or the new one.
point() {
  run ln -sfn "versions/$2" "$1.new"
  run mv -T "$1.new" "$1"
}

# A version is called after its release; other wheels of a release in use get a name of their own beside it.
name_of() {
  local whole
  for whole in "$programs/versions/$1"*/whole; do
    [ "$(cat "$whole" 2>/dev/null)" != "$digests" ] || { basename "$(dirname "$whole")" && return; }
  done
  case $1 in
    "$old" | "$(target "$programs/previous")") echo "$1-$(echo "$digests" | sha256sum | cut -c1-8)" ;;
    *) echo "$1" ;;
  esac
}

release_of() {
  local found
  found=$(find "$1" -maxdepth 1 -name 'fedfab-*.whl')
  [ "$(echo "$found" | wc -w)" = 1 ] || fail "$1: expected one wheel fedfab-VERSION-….whl, got: ${found:-none}"
  basename "$found" | cut -d- -f2
}

unit_source() {
  local each
  for each in "$here/systemd" "$here/../systemd"; do
    [ -d "$each" ] && realpath "$each" && return
  done
}

account_number() {
  awk -F: '$1 == "fedfab" { print $3 ":" $4 }' "$root/etc/passwd" 2>/dev/null || true
}

# As the service's user, and not in a folder where Python would find other modules.
as_service() (
  cd /
  if [ -z "$root" ]; then
    setpriv --reuid=fedfab --regid=fedfab --init-groups "$@"
  else
    "$@"
  fi
)

configured() {
  [ -e "$etc/${1#fedfab-}.toml" ]
}

systemd_runs() {
  [ -z "$root" ] && [ -d /run/systemd/system ]
}

main "$@"
