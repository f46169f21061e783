"""The Spanish texts, by the English ones in the code: what a person reads, except the report.

Spanish as in Spain and in Latin America: the reader is "tú", and decimals have a point. A text has
the fields of the English one, in any order.
"""

from flaxbert.messages.spanish_report import REPORT

EXPLANATIONS = {
    # what was loaded
    "{loaded} parameters come from the pre-trained model. Only the output layer is new and "
    "random: its {new} parameters have everything to learn.": "{loaded} parámetros vienen del "
    "modelo preentrenado. Solo la capa de salida es nueva y aleatoria: sus {new} parámetros "
    "lo tienen todo por aprender.",
    "All {loaded} parameters come from the checkpoint, also those of the output layer.": "Los "
    "{loaded} parámetros vienen del punto de control (checkpoint), también los de la capa de "
    "salida.",
    # the data
    "The model learns from 1 example ({kind}).": "El modelo aprende de 1 ejemplo ({kind}).",
    "The model learns from {n} examples ({kind}).": "El modelo aprende de {n} ejemplos ({kind}).",
    "texts with their label": "textos con su etiqueta",
    "texts with their labels": "textos con sus etiquetas",
    "texts with their number": "textos con su número",
    "questions with their right choice": "preguntas con su opción correcta",
    "questions with their text and answer": "preguntas con su texto y su respuesta",
    "sentences with a tag for each word": "oraciones con una etiqueta para cada palabra",
    "documents": "documentos",
    "1 other example, which it never learns from, measures how well it does on new ones.": "Con "
    "otro ejemplo, del que nunca aprende, se mide qué tal le va con ejemplos nuevos.",
    "{n} others, which it never learns from, measure how well it does on new ones.": "Con otros "
    "{n}, de los que nunca aprende, se mide qué tal le va con ejemplos nuevos.",
    "No examples are held out, so nothing measures how well it does on new ones: set "
    "data.eval, or data.eval_split=0.1.": "No se reservó ningún ejemplo, así que nada mide qué "
    "tal le va con ejemplos nuevos: indica data.eval o data.eval_split=0.1.",
    "1 text is longer than {length} tokens (data.max_length), and was cut.": "1 texto tiene más "
    "de {length} tokens (data.max_length) y se recortó.",
    "{n} texts are longer than {length} tokens (data.max_length), and were cut.": "{n} textos "
    "tienen más de {length} tokens (data.max_length) y se recortaron.",
    # the steps
    "An epoch reads every example once, in {each} of {batch}; {epochs} are {all}.": "Una época "
    "(epoch) recorre una vez todos los ejemplos, en {each} de {batch}; {epochs} son {all}.",
    "1 step": "1 paso",
    "{n} steps": "{n} pasos",
    "1 example": "1 ejemplo",
    "about {n} examples": "unos {n} ejemplos",
    "1 epoch": "1 época",
    "{n} epochs": "{n} épocas",
    "In each step the model predicts, its error (the loss) is measured, and the weights move a "
    "little so that it gets smaller.": "En cada paso el modelo predice, se mide su error (la "
    "pérdida, loss) y los pesos se mueven un poco para que disminuya.",
    "The run continues after step {done}.": "El entrenamiento continúa después del paso {done}.",
    "The rest of the training takes about {time}.": "El resto del entrenamiento tarda "
    "aproximadamente {time}.",
    "1 second": "1 segundo",
    "{n} seconds": "{n} segundos",
    "1 minute": "1 minuto",
    "{n} minutes": "{n} minutos",
    "1 hour": "1 hora",
    "{n} hours": "{n} horas",
    # evaluations
    "After {epochs}: {text}.": "Después de {epochs}: {text}.",
    "{share} right": "{share} de aciertos",
    "{share} of the answers exactly right": "{share} de respuestas exactas",
    "{share} of the hidden words guessed": "{share} de las palabras ocultas acertadas",
    "correlation {value}": "correlación {value}",
    "loss on the evaluation data {loss}": "pérdida en los datos de evaluación {loss}",
    "the loss falls, from {before} to {last}": "la pérdida baja de {before} a {last}",
    "the loss hardly changes ({last})": "la pérdida apenas cambia ({last})",
    "the loss rises, from {before} to {last}": "la pérdida sube de {before} a {last}",
    "the loss, {last}, stays above its lowest value, {lowest}: the model learns the training data "
    "by heart (overfitting)": "la pérdida, {last}, sigue por encima de su valor más bajo, "
    "{lowest}: el modelo se aprende de memoria los datos de entrenamiento (sobreajuste, "
    "overfitting)",
    "the loss is {last}, after {lowest} at its lowest": "la pérdida es {last}, y su valor más bajo "
    "fue {lowest}",
    # results
    "Result: {text}.": "Resultado: {text}.",
    "The model is right on 1 of {count} evaluation examples: {share}.": "El modelo acierta en 1 "
    "de {count} ejemplos de evaluación: {share}.",
    "The model is right on {n} of {count} evaluation examples: {share}.": "El modelo acierta en "
    "{n} de {count} ejemplos de evaluación: {share}.",
    "{share} of the words have the right tag.": "El {share} de las palabras tiene la etiqueta "
    "correcta.",
    "The predicted entities agree with the right ones to {share} (F1, which counts both missed "
    "and wrong ones).": "Las entidades predichas coinciden en un {share} con las correctas (F1, "
    "que cuenta tanto las omitidas como las incorrectas).",
    "The predicted labels agree with the right ones to {share} (F1, which counts both missed and "
    "wrong ones).": "Las etiquetas predichas coinciden en un {share} con las correctas (F1, que "
    "cuenta tanto las omitidas como las incorrectas).",
    "The predicted numbers follow the right ones with a correlation of {value} (1 is perfect, 0 "
    "is chance).": "Los números predichos siguen a los correctos con una correlación de {value} "
    "(1 es perfecta, 0 es azar).",
    "{exact} of the answers are exactly right; their words agree with the right ones to {share} "
    "(F1).": "El {exact} de las respuestas son exactas; en conjunto, sus palabras coinciden en un "
    "{share} con las de las respuestas correctas (F1).",
    "With other examples of the same kind the result would be between {low} and {high} (95 % "
    "interval).": "Con otros ejemplos del mismo tipo, el resultado estaría entre {low} y {high} "
    "(intervalo de confianza del 95 %).",
    "Without reading the texts the result would be {share} ({baseline}).": "Sin leer los textos, "
    "el resultado sería del {share} ({baseline}).",
    "The loss on the evaluation data fell from {first} to {last}: the predictions for new "
    "examples became better.": "La pérdida en los datos de evaluación bajó de {first} a {last}: "
    "las predicciones para ejemplos nuevos mejoraron.",
    "The loss on the evaluation data was lowest at {lowest}, and rose to {last}: the model began "
    "to learn the training data by heart (overfitting).": "La pérdida en los datos de evaluación "
    "llegó a {lowest}, su valor más bajo, y luego subió a {last}: el modelo empezó a aprenderse de "
    "memoria los datos de entrenamiento (sobreajuste, overfitting).",
    "The loss on the evaluation data hardly changed from the first evaluation to the last "
    "({first} and {last}).": "La pérdida en los datos de evaluación apenas cambió de la primera "
    "evaluación a la última ({first} y {last}).",
    "The loss on the evaluation data rose a little, from {first} to {last}.": "La pérdida en los "
    "datos de evaluación subió un poco, de {first} a {last}.",
    "The loss on the training data fell from {first} to {last}.": "La pérdida en los datos de "
    "entrenamiento bajó de {first} a {last}.",
    "The loss on the training data did not fall ({first} at the beginning, {last} at the end): "
    "the model learned nothing.": "La pérdida en los datos de entrenamiento no bajó ({first} al "
    "principio, {last} al final): el modelo no aprendió nada.",
}
"""What `--explain` and the report say in sentences."""

CONSOLE = {
    "device: {devices}, {dtype}": "dispositivo: {devices}, {dtype}",
    "{source}: {examples} examples, {features} features": "{source}: {examples} ejemplos, "
    "{features} secuencias",
    "{source}: {done} texts tokenized, on each of {count} hosts a share": "{source}: {done} textos "
    "tokenizados, una parte en cada una de las {count} máquinas",
    "; {cut} of them cut to data.max_length={length} tokens": "; {cut} recortados a "
    "data.max_length={length} tokens",
    "labels of {n} training examples: {labels}": "etiquetas de {n} ejemplos de entrenamiento: "
    "{labels}",
    "train": "entrenar",
    "evaluate": "evaluar",
    "ETA": "quedan",
    ", {time} left": ", quedan {time}",
    "loss {loss:.4f}  {examples:.1f} examples/s  {tokens:.0f} tokens/s": "pérdida {loss:.4f}  "
    "{examples:.1f} ejemplos/s  {tokens:.0f} tokens/s",
    # tables
    "metric": "métrica",
    "value": "valor",
    "95 % interval": "intervalo del 95 %",
    "{low} to {high}": "{low} a {high}",
    "... {n} more in {file}": "... {n} más en {file}",
    "predictions": "predicciones",
    "answer": "respuesta",
    "document": "documento",
    "label": "etiqueta",
    "labels": "etiquetas",
    "masked": "ocultas",
    "second text": "segundo texto",
    "perplexity": "perplejidad",
    "predicted": "predicción",
    "probability": "probabilidad",
    "question": "pregunta",
    "right": "correcto",
    "tags": "etiquetas",
    "text": "texto",
    # after a run
    "Files in {workdir}: {files}": "Archivos en {workdir}: {files}",
    "Next:\n"
    "  look        open {workdir}/report.html in a browser\n"
    "  predict     flaxbert predict {config} --workdir={workdir} "
    "--config.data.predict=FILE\n"
    "  try it out  flaxbert serve {workdir}   (pip install 'flaxbert[serve]')\n"
    "  in Python   flaxbert.load({quoted}).predict([...])\n"
    "  plot        tensorboard --logdir {workdir}   (pip install tensorboard)\n"
    "  deploy      transformers loads {workdir}/export; flaxbert export {workdir} DIR\n"
    "  share       flaxbert push {workdir} NAME/MODEL --dry-run": "Y ahora:\n"
    "  mirar       abre {workdir}/report.html en un navegador\n"
    "  predecir    flaxbert predict {config} --workdir={workdir} "
    "--config.data.predict=ARCHIVO\n"
    "  probar      flaxbert serve {workdir}   (pip install 'flaxbert[serve]')\n"
    "  en Python   flaxbert.load({quoted}).predict([...])\n"
    "  curvas      tensorboard --logdir {workdir}   (pip install tensorboard)\n"
    "  usar        transformers lee {workdir}/export; flaxbert export {workdir} CARPETA\n"
    "  compartir   flaxbert push {workdir} NOMBRE/MODELO --dry-run",
    "1 prediction": "1 predicción",
    "{n} predictions": "{n} predicciones",
    "1 malformed row was skipped": "se omitió 1 fila mal formada",
    "{n} malformed rows were skipped": "se omitieron {n} filas mal formadas",
    "Run in {workdir}, {n} steps": "Entrenamiento en {workdir}, {n} pasos",
    "and {n} more in results.json": "y {n} más en results.json",
    "report: {file}": "informe: {file}",
    # --smoke
    "smoke test": "prueba rápida",
    "step": "paso",
    "result": "resultado",
    "seconds": "segundos",
    "save": "guardar",
    "restore": "restaurar",
    "export": "exportar",
    "FAILED": "FALLÓ",
    "not run": "sin ejecutar",
    "{n} examples": "{n} ejemplos",
    "1 step of batch size {size}, loss {loss}": "1 paso con lotes de {size}, pérdida {loss}",
    "{n} steps of batch size {size}, loss {loss}": "{n} pasos con lotes de {size}, pérdida {loss}",
    "checkpoints of steps {steps}": "puntos de control de los pasos {steps}",
    "step {last}, repeated from checkpoint {before}, is bit-identical": "el paso {last}, repetido "
    "desde el punto de control {before}, es idéntico bit a bit",
    "loaded": "cargado",
    "loaded; its prediction is that of the run": "cargado; su predicción es la del entrenamiento",
    "loaded; its {n} predictions are those of the run": "cargado; sus {n} predicciones son las "
    "del entrenamiento",
    # errors, whose messages are English
    "Help: {page}": "Ayuda: {page}. El mensaje, en inglés:",
    "Something in the configuration or the command is not valid.": "Algo de la configuración o "
    "del comando no es válido.",
    "A data file is missing, or something in it is not valid.": "Falta un archivo de datos, o "
    "algo de su contenido no es válido.",
    "The weights or the config.json of the model do not fit.": "Los pesos o el config.json del "
    "modelo no encajan.",
    "Something at a URL could not be fetched.": "Hubo algo que no se pudo descargar de una URL.",
    "Something could not be fetched from the Hugging Face Hub.": "Hubo algo que no se pudo "
    "descargar del Hugging Face Hub.",
    "There is a problem with the directory of the run.": "Hay un problema con la carpeta del "
    "entrenamiento.",
    "The memory of the device is too small.": "La memoria del dispositivo no alcanza.",
    "The training diverged: a number is not finite.": "El entrenamiento divergió: apareció un "
    "número que no es finito.",
    "The command cannot go on.": "El comando no puede continuar.",
}
"""What commands print, and the log lines that everybody sees."""

INIT = {
    "Next:\n"
    "  check       flaxbert lint --config={config}\n"
    "  try         flaxbert train --config={config} --smoke\n"
    "  train       flaxbert train --config={config} --workdir={run}": "Y ahora:\n"
    "  revisar     flaxbert lint --config={config}\n"
    "  probar      flaxbert train --config={config} --smoke\n"
    "  entrenar    flaxbert train --config={config} --workdir={run}",
    "wrote {file}": "se escribió {file}",
    "1 document for {task}": "1 documento para {task}",
    "{n} documents for {task}": "{n} documentos para {task}",
    "1 example for {task}": "1 ejemplo para {task}",
    "{n} examples for {task}": "{n} ejemplos para {task}",
    "1 malformed row is left out: {first}": "se omite 1 fila mal formada: {first}",
    "{n} malformed rows are left out: {first}": "se omiten {n} filas mal formadas: {first}",
    "there is no --eval: {share} are held out; equal texts stay together": "no hay --eval: se "
    "reserva el {share}; los textos iguales quedan juntos",
    "small models take larger ones": "los modelos pequeños admiten valores mayores",
    "as usual for questions; longer contexts have windows": "lo habitual para preguntas; los "
    "contextos más largos se leen por ventanas",
    "given by --model": "indicado con --model",
    "{why}; another: --model=MODEL": "{why}; otro: --model=MODELO",
    "1 example is little, so there are more passes over it": "1 ejemplo es poco, así que se "
    "recorre más veces",
    "{n} examples are few, so there are more passes over them": "{n} ejemplos son pocos, así que "
    "se recorren más veces",
    "the columns question, context and answers, as in SQuAD": "las columnas question, context y "
    "answers, como en SQuAD",
    "1 question has no answer": "1 pregunta no tiene respuesta",
    "{n} questions have no answer": "{n} preguntas no tienen respuesta",
    "{words} and {tags} hold a list each, a tag for every word": "{words} y {tags} contienen una "
    "lista cada una, con una etiqueta para cada palabra",
    "{columns}: the choices of a question": "{columns}: las opciones de una pregunta",
    "{column} holds a list of labels for each text": "{column} contiene una lista de etiquetas "
    "para cada texto",
    "{n} columns hold only 0 and 1": "{n} columnas contienen solo 0 y 1",
    "cells of {column} hold several labels, separated by {separator!r}": "las celdas de {column} "
    "contienen varias etiquetas, separadas por {separator!r}",
    "{column} holds fractions": "{column} contiene números con decimales",
    "{column} holds {n} different numbers": "{column} contiene {n} números distintos",
    "{column} holds {n} recurring values": "{column} contiene {n} valores que se repiten",
    "plain text without labels: the model learns its language by pre-training": "texto sin "
    "etiquetas: el modelo aprende su lenguaje con preentrenamiento",
    "texts have about {median} tokens, the longest {longest}": "los textos tienen unos {median} "
    "tokens, y el más largo, {longest}",
    "; about {share} are longer": "; cerca del {share} es más largo",
    "the language was not recognized": "no se reconoció el idioma",
    "the texts are {language}": "los textos están en {language}",
    "English": "inglés",
    "Spanish": "español",
    "lists": "listas",
    "numbers the rows": "numera las filas",
    "{n} different numbers": "{n} números distintos",
    "{n} recurring values": "{n} valores que se repiten",
    "texts of about {n} words": "textos de unas {n} palabras",
    "other values": "otros valores",
    "; another may be meant: {other}": "; quizá sea otra: {other}",
}
"""What `flaxbert init` prints, and writes as comments."""

SPANISH = REPORT | EXPLANATIONS | CONSOLE | INIT
