// Replace videos that this browser can't play by their stills, and play only one video at a time.
document.addEventListener('error', (event) => {
  const video = event.target;
  if (!video.matches?.('.vop-card video')) return;
  video.closest('.vop-card').classList.add('vop-unplayed');
  video.remove();  // the next results contain a new one
}, true);
document.addEventListener('play', (event) => {
  document.querySelectorAll('.vop-card video').forEach((video) => {
    if (video !== event.target) video.pause();
  });
}, true);

// A late answer never replaces the answer to a later question.
let newest = { order: '0', html: '' };
new MutationObserver(() => {
  const answer = document.querySelector('#vop-results [data-order]');
  if (!answer || answer.dataset.order === newest.order) return;
  if (Number(answer.dataset.order) > Number(newest.order)) {
    newest = { order: answer.dataset.order, html: answer.innerHTML };
  } else {
    answer.dataset.order = newest.order;
    answer.innerHTML = newest.html;
  }
}).observe(document, { childList: true, subtree: true, attributes: true, attributeFilter: ['data-order'] });

// Clips are posted unchanged; the answer is HTML.
let uploads = 0;
function show(place, kind, text) {
  const line = document.createElement('p');
  line.className = kind;
  line.setAttribute('role', kind === 'vop-message' ? 'alert' : 'status');
  line.textContent = text;
  place.replaceChildren(line);
}
async function upload(file) {
  const place = document.querySelector('#vop-neighbors');
  const { collection, most } = document.querySelector('#vop-drop').dataset;
  const number = ++uploads;
  if (file.size > Number(most)) {
    show(place, 'vop-message', `${file.name} is too large: the limit is ${Number((most / 2 ** 20).toPrecision(4))} MB`);
    return;
  }
  show(place, 'vop-hint', `Comparing ${file.name} ...`);
  try {
    const name = new URLSearchParams({ name: file.name });
    const response = await fetch(`nearest/${collection}?${name}`, { method: 'POST', body: file });
    const answer = await response.text();
    if (number !== uploads) return;  // another clip was uploaded in the meantime
    if (response.headers.get('content-type')?.startsWith('text/html')) place.innerHTML = answer;
    else show(place, 'vop-message', `${file.name} was refused: ${answer}`);
  } catch {
    if (number === uploads) show(place, 'vop-message', `${file.name} could not be uploaded`);
  }
}
document.addEventListener('change', (event) => {
  if (!event.target.matches?.('#vop-drop input') || !event.target.files.length) return;
  upload(event.target.files[0]);
  event.target.value = '';  // so that the same clip can be selected again
});
for (const kind of ['dragover', 'dragleave', 'drop']) {
  document.addEventListener(kind, (event) => {
    const zone = document.querySelector('#vop-drop');
    if (!zone?.offsetParent) return;  // another tab is open
    event.preventDefault();  // do not open a file that is dropped outside of the zone
    const inside = event.target.closest?.('#vop-drop') === zone;
    zone.classList.toggle('vop-over', kind === 'dragover' && inside);
    if (kind === 'drop' && inside && event.dataTransfer.files.length) upload(event.dataTransfer.files[0]);
  });
}
