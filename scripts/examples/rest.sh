#!/usr/bin/env bash
# Speech, transcription and chat with nothing but curl: scripts/examples/rest.sh [--url URL] [--key KEY] [--out FOLDER]
set -euo pipefail
url=http://127.0.0.1:8080 key=none out=.
while [ $# -gt 0 ]; do
  case "$1" in
    --url) url="$2" ;;
    --key) key="$2" ;;
    --out) out="$2" ;;
    *) echo "usage: $0 [--url URL] [--key KEY] [--out FOLDER]" >&2; exit 2 ;;
  esac
  shift 2
done
ask() { curl --silent --show-error --fail-with-body --header "Authorization: Bearer $key" "$@"; }

echo "voices:"
ask "$url/v1/voices"; echo

echo "speech:"
ask "$url/v1/audio/speech" --json '{"model": "pocket", "input": "okay, a table for two on friday at ten.", "voice": "default_female", "response_format": "wav"}' \
  --output "$out/speech.wav"
echo "$(wc -c < "$out/speech.wav") bytes in $out/speech.wav"

echo "transcription of it:"
ask "$url/v1/audio/transcriptions" --form "file=@$out/speech.wav" --form model=pocket --form response_format=text; echo

echo "chat:"
ask "$url/v1/chat/completions" --json '{"model": "pocket", "messages": [{"role": "user", "content": "do you have parking"}]}'; echo
