#!/bin/sh
# The pictures of docs/monitoring.md, which says what must run before: screenshots.sh FOLDER
set -eu

shot() { # name, size, address
    chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size="$2" --virtual-time-budget=60000 \
        --screenshot="$folder/$1.png" "$3" 2>/dev/null
}

folder=$1
training="http://localhost:6006/?darkMode=false#"
fit="http://localhost:6007/?darkMode=false#"
shot monitoring_training 1300,720 "${training}scalars&tagFilter=loss/(chi2|kl$|loss)"
shot monitoring_images 1300,500 "${training}images&tagFilter=reconstructions|prior"
shot monitoring_fit 1300,760 "${fit}scalars&tagFilter=chi2|loss|theta_E"
shot monitoring_fit_images 1300,600 "${fit}images&tagFilter=fit|residual"
