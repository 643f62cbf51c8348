#!/usr/bin/env bash
# Packs the speech synthesisers that make the pocket checkpoint's training data, for a machine that has no network.
#
#   scripts/pocket/tts_libs.sh [FOLDER]      writes FOLDER/tts.tar.xz (default: .tts, ignored by git)
#
# There: mkdir -p /tmp/tts && tar xJf .tts/tts.tar.xz -C /tmp/tts, and TTS_ROOT=/tmp/tts in the environment (see synth.py).
# Needs apt-get of Debian 12; installs nothing and needs no root. The result runs on any x86-64 with glibc 2.36 or later.
set -euo pipefail
folder=${1:-.tts}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$folder" "$work/lists/partial" "$work/cache/archives/partial" "$work/debs" "$work/root"

# Our own apt state with non-free added. There live SVOX Pico (Apache-2.0) and RHVoice (LGPL-2.1+), whose voices cannot
# be rebuilt from source, and festival's Castilian voice (not for commercial use: examined with, never trained on).
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' | awk '$2 == "bookworm" { print $1; exit }')
[ -n "$mirror" ] || { echo "No Debian 12 mirror is configured here (apt-get update first)." >&2; exit 2; }
echo "deb [signed-by=$keyring] $mirror bookworm main non-free" >"$work/sources.list"
apt=(apt-get -qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
"${apt[@]}" update
packages=(espeak-ng-data libespeak-ng1 libsonic0 libpcaudio0 libflite1 libttspico0 libttspico-data
    festival libestools2.5 festlex-cmu festlex-poslex festvox-kallpc16k festvox-kdlpc16k
    festvox-ellpc11k librhvoice5 librhvoice-core7 rhvoice-english
    # what their libraries need, down to the sound system that is never used
    libasound2 libasyncns0 libbsd0 libcap2 libdbus-1-3 libflac12 libgcrypt20 libgomp1 libgpg-error0 liblz4-1 liblzma5
    libmd0 libmp3lame0 libmpg123-0 libogg0 libopus0 libpulse0 libsndfile1 libsystemd0 libtinfo6 libvorbis0a
    libvorbisenc2 libx11-6 libx11-xcb1 libxau6 libxcb1 libxdmcp6 libzstd1)
(cd "$work/debs" && "${apt[@]}" download "${packages[@]}")
for package in "$work"/debs/*.deb; do dpkg -x "$package" "$work/root"; done

# One library folder, and of the data only what synth.py and noises.py speak.
cd "$work/root"
libraries=usr/lib/x86_64-linux-gnu
cp -a lib/x86_64-linux-gnu/. "$libraries/" && mv "$libraries"/pulseaudio/*.so "$libraries/" && rm -rf lib "$libraries/pulseaudio"
rm -rf usr/share/{doc,man,lintian,locale,info,alsa,X11,bug,emacs,sgml} usr/include usr/sbin var
# Two of RHVoice's voices are not free for every use; the engine wants its voices at 24 kHz.
rm -rf usr/share/RHVoice/voices/{evgeniy-eng,lyubov,*/16000} etc
rm -f "$libraries"/libflite_cmu_{time_awb,us_kal,grapheme_lex,grapheme_lang,indic_lex,indic_lang}.so*
rm -f "$libraries"/lib{xcb-,X11-xcb.la,ssl}*
find usr/share/pico/lang -type f ! -name 'en-*' ! -name 'de-*' ! -name 'fr-*' ! -name 'es-*' -delete
find "$libraries/espeak-ng-data" -name '*_dict' ! -name en_dict ! -name fr_dict ! -name de_dict ! -name es_dict \
    ! -name it_dict ! -name pt_dict ! -name nl_dict ! -name pl_dict ! -name sv_dict ! -name tr_dict ! -name fi_dict \
    ! -name hi_dict ! -name ru_dict ! -name cmn_dict -delete
rm -rf "$libraries/espeak-ng-data/voices/mb" "$libraries/espeak-ng-data/mbrola_ph"
cd - >/dev/null
tar -C "$work/root" -cJf "$folder/tts.tar.xz" usr
du -h "$folder/tts.tar.xz"
du -sh "$work/root" | cut -f1
